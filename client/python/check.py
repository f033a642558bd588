#!/usr/bin/env python3
"""A conformance walk through docs/PROTOCOL.md against a running branch.

    python3 client/python/check.py DIR/connect.json [--only NAME] [--verbose]

Uses fresh accounts and ids, so it can be run again and again against the same bank. Prints what failed and at the
end `N passed, N failed`; exits with 1 when anything failed.
"""

import argparse
import json
import secrets
import socket
import ssl
import struct
import sys
import time
import traceback

import tallystick as tally
from tallystick import Connection, Refused, Transfer, account_id, house_account_id, new_id

EUR, USD, CHF = 978, 840, 756
ALL_ONES = (1 << 128) - 1
AMOUNT_MAX = (1 << 64) - 1
STALL_S = 10


class Walk:
    """What the checks share: how to connect, who may, and the count."""

    def __init__(self, described, verbose):
        self.described, self.verbose = described, verbose
        self.passed = self.failed = 0
        self.host, port = described["endpoint"].rsplit(":", 1)
        self.host, self.port = self.host.strip("[]"), int(port)
        self.branch = described["branch_id"]
        self.teller = self.user("teller") or self.user("admin")
        self.where = ""

    def user(self, role, index=0):
        users = [user for user in self.described["users"] if user["role"] == role]
        return users[index] if index < len(users) else None

    def connect(self, **options):
        return Connection.open(self.host, self.port, self.described["ca_file"], self.described["server_name"], **options)

    def logged_in(self, user=None):
        user = user or self.teller
        connection = self.connect()
        connection.login(user["name"], user["password"])
        return connection

    def check(self, name, condition, detail=""):
        if condition:
            self.passed += 1
            if self.verbose:
                print(f"  ok    {self.where}: {name}")
        else:
            self.failed += 1
            print(f"  FAIL  {self.where}: {name} {detail}")
        return condition

    def equal(self, name, found, expected):
        return self.check(name, found == expected, f"- found {found!r}, expected {expected!r}")

    def refused(self, name, expected, call):
        """Whether `call` is refused with this name; `expected` None: whether it is done."""
        return self.equal(name, refusal(call), expected)

    # Fresh things.

    def fresh_id(self):
        return account_id(self.branch, 1 << 100 | secrets.randbits(100))

    def open(self, bank, count=1, **fields):
        fields.setdefault("currency", EUR)
        accounts = [tally.AccountOpen(self.fresh_id(), **fields) for _ in range(count)]
        results = bank.open_accounts(accounts)
        if any(result.refusal for result in results):
            raise AssertionError(f"cannot open accounts: {results}")
        return [account.id for account in accounts] if count > 1 else accounts[0].id

    def funded(self, bank, amount=10_000, **fields):
        account = self.open(bank, **fields)
        bank.transfer(deposit(account, amount, currency=fields.get("currency", EUR)))
        return account


def refusal(call):
    """The name of the refusal that `call` ends with, or None where it is done."""
    try:
        call()
    except Refused as refused:
        return refused.name
    return None


def names(results):
    return [tally.REFUSALS.get(result.refusal, result.refusal) if result.refusal else None for result in results]


def move(debit, credit, amount=100, **fields):
    fields.setdefault("id", new_id())
    fields.setdefault("currency", EUR)
    fields.setdefault("code", 1)
    fields.setdefault("kind", tally.MOVE)
    return Transfer(debit_account_id=debit, credit_account_id=credit, amount=amount, **fields)


def deposit(account, amount, **fields):
    return move(0, account, amount, kind=tally.DEPOSIT, **fields)


def withdraw(account, amount, **fields):
    return move(account, 0, amount, kind=tally.WITHDRAW, **fields)


def hold(debit, credit, amount=100, **fields):
    return move(debit, credit, amount, kind=tally.HOLD, **fields)


def about(kind, reference, **fields):
    """A settle, void or reversal."""
    fields.setdefault("id", new_id())
    return Transfer(kind=kind, reference=reference, **fields)


def changed(transfer, **fields):
    """A copy with other fields."""
    return Transfer(**{**transfer.__dict__, **fields})


# The checks, in the order of the page.


def check_handshake(walk):
    with walk.connect() as bank:
        hello = bank.hello_reply
        walk.equal("version", hello.version, 1)
        walk.equal("branch", hello.branch_id, walk.branch)
        walk.equal("frame limit", hello.frame_len_bytes_max, 1 << 20)
        walk.equal("batch limit", hello.batch_len_max, 8190)
        walk.check("some requests in flight", hello.in_flight_max >= 1)
        walk.check("the clock is near ours", abs(hello.server_time - time.time_ns()) < 60 * 10**9)
        walk.equal("protocol of the TLS handshake", bank.sock.selected_alpn_protocol(), tally.ALPN)
        walk.equal("TLS version", bank.sock.version(), "TLSv1.3")
        bank.ping()


def check_login(walk):
    user = walk.teller
    with walk.connect() as bank:
        walk.refused("unknown user", "login_failed", lambda: bank.login(f"nobody-{secrets.token_hex(4)}", "x"))
        walk.refused("no token of ours", "login_failed", lambda: bank.login_with_token("a.b.c"))
        reply = bank.login(user["name"], user["password"])
        walk.check("the same connection may try again", reply.role in (2, 4))
        walk.check("the token ends in the future", reply.expires_at > time.time_ns())
        bank.status()
    with walk.connect() as bank:
        again = bank.login_with_token(reply.token)
        walk.equal("a token logs in as the same", (again.role, again.customer_id), (reply.role, reply.customer_id))
        bank.status()


def check_status(walk):
    with walk.logged_in() as bank:
        status = bank.status()
        walk.equal("branch", status.branch_id, walk.branch)
        walk.equal("accepting", status.accepting, 1)
        walk.check("sessions", status.sessions >= 1)
        walk.check("started before now", status.started_at <= status.server_time)
        bank.transfer(deposit(walk.open(bank), 1))
        after = bank.status()
        walk.check("posted is counted", after.transfers_posted > status.transfers_posted)
        walk.check("accounts are counted", after.accounts > status.accounts)
        walk.check("durable has moved", after.durable > status.durable)


def check_open_accounts(walk):
    with walk.logged_in() as bank:
        base = tally.AccountOpen(walk.fresh_id(), EUR, owner=77, overdraft=5, code=3, user_data_128=1 << 127,
                                 user_data_64=2, user_data_32=3)
        first = bank.open_accounts([base])[0]
        walk.check("opened", first.refusal == 0 and first.timestamp > 0 and not first.repeated, first)
        again = bank.open_accounts([base])[0]
        walk.check("a repeat is answered as done", again.refusal == 0 and again.repeated, again)
        account = bank.account(base.id)
        walk.equal("what is read is what was written", account.open, base)
        walk.equal("status", account.status, tally.OPEN)
        walk.equal("no money", account.sums, tally.Sums(0, 0, 0, 0))

        def variant(**fields):
            return tally.AccountOpen(**{**base.__dict__, **fields})

        different = [
            ("exists_with_different_flags", variant(flags=0)),
            ("exists_with_different_kind", variant(kind=tally.FEE)),
            ("exists_with_different_user_data_128", variant(user_data_128=1)),
            ("exists_with_different_user_data_64", variant(user_data_64=1)),
            ("exists_with_different_user_data_32", variant(user_data_32=1)),
            ("exists_with_different_currency", variant(currency=USD)),
            ("exists_with_different_code", variant(code=4)),
            ("exists_with_different_owner", variant(owner=78)),
            ("exists_with_different_limits", variant(overdraft=6)),
            ("id_must_not_be_zero", variant(id=0)),
            ("id_must_not_be_max", variant(id=ALL_ONES)),
            ("flag_reserved", variant(id=walk.fresh_id(), flags=1 << 7)),
            ("flags_conflict", variant(id=walk.fresh_id(), flags=3)),
            ("flags_conflict", variant(id=walk.fresh_id(), flags=tally.OPENED_FROZEN | tally.OPENED_CLOSED)),
            ("currency_invalid", variant(id=walk.fresh_id(), currency=0)),
            ("currency_invalid", variant(id=walk.fresh_id(), currency=1000)),
            ("code_must_not_be_zero", variant(id=walk.fresh_id(), code=0)),
            ("wrong_branch", variant(id=account_id(walk.branch + 1, 5))),
            ("account_id_reserved", variant(id=account_id(walk.branch, 1 << 111 | 5))),
            ("account_kind_invalid", variant(id=walk.fresh_id(), kind=9)),
            ("account_kind_invalid", variant(id=walk.fresh_id(), kind=tally.CASH)),
            (None, base),
        ]
        results = bank.open_accounts([account for _, account in different])
        walk.equal("each account for itself", names(results), [name for name, _ in different])
        reserved = bytearray(variant(id=walk.fresh_id()).pack())
        reserved[-1] = 1
        item = bank.call(tally.OPEN_ACCOUNTS, bytes(reserved))[0]
        walk.equal("a reserved byte", names([item]), ["field_invalid"])
        walk.refused("none at all", "count_invalid", lambda: bank.open_accounts([]))


def check_linked_openings(walk):
    with walk.logged_in() as bank:
        def chain(count, **last):
            accounts = [tally.AccountOpen(walk.fresh_id(), EUR, flags=tally.ACCOUNT_LINKED) for _ in range(count - 1)]
            return accounts + [tally.AccountOpen(walk.fresh_id(), EUR, **last)]

        first = chain(3)
        opened = bank.open_accounts(first)
        walk.equal("a chain is opened", names(opened), [None] * 3)
        walk.equal("without the flag of the request", bank.account(first[0].id).open.flags, 0)
        again = bank.open_accounts(first)
        walk.equal("a repeat has the first answers", [item.timestamp for item in again],
                   [item.timestamp for item in opened])
        walk.check("and says so", all(item.repeated for item in again), again)
        broken = chain(3, code=0)
        walk.equal("one breaks all", names(bank.open_accounts(broken)),
                   ["chain_broken", "chain_broken", "code_must_not_be_zero"])
        walk.refused("nothing is opened", "account_not_found", lambda: bank.account(broken[0].id))
        known = [chain(2)[0], first[2]]
        walk.equal("an account from before breaks it", names(bank.open_accounts(known)),
                   ["chain_broken", "id_already_used"])
        walk.refused("nothing is opened", "account_not_found", lambda: bank.account(known[0].id))
        walk.equal("no end", names(bank.open_accounts(chain(3)[:2])), ["chain_broken", "chain_open"])
        walk.equal("256", set(names(bank.open_accounts(chain(256)))), {None})
        walk.equal("257", names(bank.open_accounts(chain(257)))[-1], "count_invalid")
        many = sum((chain(100) for _ in range(20)), [])
        walk.equal("many chains", set(names(bank.open_accounts(many))), {None})
        frozen, closed = walk.open(bank, flags=tally.OPENED_FROZEN), walk.open(bank, flags=tally.OPENED_CLOSED)
        walk.equal("opened frozen", bank.account(frozen).status, tally.FROZEN)
        walk.equal("opened closed", bank.account(closed).status, tally.CLOSED)


def check_closing_holds(walk):
    with walk.logged_in() as bank:
        alice, bob = walk.funded(bank), walk.open(bank)
        older = hold(alice, bob, 100)
        bank.transfer(older)
        closing = hold(alice, bob, 0, flags=tally.CLOSING_DEBIT)
        walk.equal("a hold of nothing", bank.transfer(closing).amount, 0)
        walk.equal("closing", bank.account(alice).status, tally.CLOSING)
        walk.refused("no debit", "debit_account_closed", lambda: bank.transfer(move(alice, bob, 1)))
        walk.refused("no credit", "credit_account_closed", lambda: bank.transfer(deposit(alice, 1)))
        walk.refused("no freeze", "account_closed", lambda: bank.freeze_account(alice))
        walk.refused("no close", "account_closed", lambda: bank.close_account(alice))
        walk.refused("an older hold is settled", None, lambda: bank.transfer(about(tally.SETTLE, older.id)))
        walk.refused("money is left", "debit_account_not_empty", lambda: bank.transfer(about(tally.SETTLE, closing.id)))
        bank.transfer(about(tally.VOID, closing.id))
        walk.equal("voided: open again", bank.account(alice).status, tally.OPEN)
        soon = hold(alice, bob, 0, flags=tally.CLOSING_DEBIT, timeout_s=1)
        bank.transfer(soon)
        deadline = time.monotonic() + 10
        while bank.account(alice).status == tally.CLOSING and time.monotonic() < deadline:
            time.sleep(0.1)
        walk.equal("expired: open again", bank.account(alice).status, tally.OPEN)
        sweep = hold(alice, bob, AMOUNT_MAX, flags=tally.CLOSING_DEBIT | tally.BALANCING_DEBIT)
        walk.equal("all that there is", bank.transfer(sweep).amount, 9_900)
        bank.transfer(about(tally.SETTLE, sweep.id))
        walk.equal("settled: closed for good", bank.account(alice).status, tally.CLOSED)
        walk.refused("for good", "account_closed", lambda: bank.unfreeze_account(alice))


def check_imports(walk):
    admin, now = walk.user("admin"), time.time_ns()
    if not walk.check("connect.json names an admin", admin):
        return
    day = 86_400 * 10**9
    with walk.logged_in(admin) as bank:
        def imported(days, **fields):
            flags = fields.pop("flags", 0) | tally.ACCOUNT_IMPORTED
            return tally.AccountOpen(walk.fresh_id(), EUR, user_data_64=now - days * day, flags=flags, **fields)

        def paid(days, debit, credit, **fields):
            return move(debit, credit, 5, user_data_64=now - days * day, flags=tally.IMPORTED, **fields)

        alice, bob = imported(9), imported(8, flags=tally.ACCOUNT_LINKED)
        walk.equal("accounts", names(bank.open_accounts([bob, alice])), [None, None])
        walk.equal("opened at their own time", bank.account(alice.id).opened_at, now - 9 * day)
        reply = bank.transfer(paid(7, alice.id, bob.id))
        walk.check("a stamp of today", reply.timestamp > now - day)
        for name, expected, transfer in [
            ("the future", "imported_event_timestamp_must_not_advance", paid(-9, alice.id, bob.id)),
            ("before the debit account", "imported_event_timestamp_must_postdate_debit_account", paid(8, bob.id, alice.id)),
            ("before the credit account", "imported_event_timestamp_must_postdate_credit_account",
             paid(8, alice.id, bob.id)),
            ("no time", "imported_event_timestamp_out_of_range", changed(paid(1, alice.id, bob.id), user_data_64=0)),
            ("a time-out", "imported_event_timeout_must_be_zero",
             changed(paid(1, alice.id, bob.id), kind=tally.HOLD, timeout_s=5)),
            ("older than the last", None, paid(7, alice.id, bob.id)),
        ]:
            walk.refused(name, expected, lambda transfer=transfer: bank.transfer(transfer))
        mixed = [paid(6, alice.id, bob.id), move(alice.id, bob.id, 5), paid(5, alice.id, bob.id)]
        walk.equal("all or none", names(bank.batch(mixed)), [None, "imported_event_expected", None])
        walk.equal("all or none in a chain", names(bank.chain(mixed[1:] + mixed[:1])),
                   ["chain_broken", "imported_event_not_expected", "imported_event_not_expected"])
        walk.equal("accounts of a request too", names(bank.open_accounts([imported(1), tally.AccountOpen(walk.fresh_id(), EUR)])),
                   [None, "imported_event_expected"])
        walk.equal("an account of the future", names(bank.open_accounts([imported(-9)])),
                   ["imported_event_timestamp_must_not_advance"])
    teller = walk.user("teller")
    if teller:
        with walk.logged_in(teller) as bank:
            item = bank.open_accounts([imported(1)])
            walk.equal("history is an admin's", names(item), ["not_permitted"])
            walk.refused("all of it", "not_permitted", lambda: bank.transfer(paid(1, alice.id, bob.id)))


def check_payments(walk):
    with walk.logged_in() as bank:
        alice, bob = walk.open(bank, 2)
        reply = bank.transfer(deposit(alice, 10_000, flags=tally.WANT_BALANCES))
        walk.check("a deposit is recorded", reply.lsn > 0 and reply.timestamp > 0 and reply.amount == 10_000, reply)
        walk.equal("its credit side", reply.balances[1], tally.Sums(0, 0, 0, 10_000))
        plain = bank.transfer(move(alice, bob, 2_500))
        walk.check("no balances unless asked for", plain.balances is None)
        walk.check("positions and stamps rise", plain.lsn > reply.lsn and plain.timestamp > reply.timestamp)
        reply = bank.transfer(withdraw(bob, 500, flags=tally.WANT_BALANCES))
        walk.equal("a withdrawal's debit side", reply.balances[0], tally.Sums(0, 500, 0, 2_500))
        a, b = bank.balance(alice), bank.balance(bob)
        walk.equal("balances", (a.sums.balance, b.sums.balance), (7_500, 2_000))
        walk.equal("available", (a.available, b.available), (7_500, 2_000))
        walk.equal("the account's last record", b.lsn, reply.lsn)
        walk.equal("currency and status", (b.currency, b.status), (EUR, tally.OPEN))
        till = bank.balance(house_account_id(walk.branch, tally.CASH, EUR))
        walk.check("the till is the other side", till.sums.debits_posted >= 10_000 and till.sums.credits_posted >= 500)
        walk.refused("no such account", "account_not_found", lambda: bank.balance(walk.fresh_id()))
        walk.refused("no such account", "account_not_found", lambda: bank.account(walk.fresh_id()))
        walk.refused("id 0", "id_must_not_be_zero", lambda: bank.balance(0))
        walk.refused("another branch", "wrong_branch", lambda: bank.balance(account_id(walk.branch + 1, 1)))


def check_malformed_transfers(walk):
    with walk.logged_in() as bank:
        alice, bob = walk.open(bank, 2)
        base = move(alice, bob)
        held = hold(alice, bob)
        settle = about(tally.SETTLE, new_id())
        cases = [
            ("id_must_not_be_zero", base, {"id": 0}),
            ("id_must_not_be_max", base, {"id": ALL_ONES}),
            ("flag_reserved", base, {"flags": 1 << 7}),
            ("kind_invalid", base, {"kind": 0}),
            ("kind_invalid", base, {"kind": 8}),
            ("flags_conflict", settle, {"flags": tally.BALANCING_DEBIT}),
            ("debit_account_must_not_be_zero", base, {"debit_account_id": 0}),
            ("debit_account_must_not_be_max", base, {"debit_account_id": ALL_ONES}),
            ("credit_account_must_not_be_zero", base, {"credit_account_id": 0}),
            ("credit_account_must_not_be_max", base, {"credit_account_id": ALL_ONES}),
            ("accounts_must_differ", base, {"credit_account_id": alice}),
            ("reference_must_be_zero", base, {"reference": 5}),
            ("reference_must_not_be_zero", settle, {"reference": 0}),
            ("reference_must_not_be_max", settle, {"reference": ALL_ONES}),
            ("reference_must_differ", settle, {"reference": settle.id}),
            ("timeout_reserved_for_hold", base, {"timeout_s": 5}),
            ("flags_conflict", base, {"flags": tally.CLOSING_DEBIT}),
            ("flags_conflict", settle, {"flags": tally.CLOSING_CREDIT}),
            ("account_id_reserved", hold(house_account_id(walk.branch, tally.CASH, EUR), bob),
             {"flags": tally.CLOSING_DEBIT}),
            ("imported_event_timestamp_out_of_range", base, {"flags": tally.IMPORTED}),
            ("amount_must_not_be_zero", base, {"amount": 0}),
            ("amount_must_not_be_zero", held, {"amount": 0}),
            ("currency_invalid", base, {"currency": 0}),
            ("currency_invalid", base, {"currency": 1000}),
            ("code_must_not_be_zero", base, {"code": 0}),
            ("wrong_branch", base, {"credit_account_id": account_id(walk.branch + 1, 5)}),
            ("cash_side_must_be_zero", deposit(alice, 5), {"debit_account_id": bob}),
            ("cash_side_must_be_zero", withdraw(alice, 5), {"credit_account_id": bob}),
            # The first that applies, in the order of the codes.
            ("id_must_not_be_zero", base, {"id": 0, "kind": 99, "amount": 0}),
            ("kind_invalid", base, {"kind": 99, "amount": 0, "code": 0}),
            ("amount_must_not_be_zero", base, {"amount": 0, "currency": 0, "code": 0}),
        ]
        for expected, transfer, fields in cases:
            bad = changed(transfer, **fields)
            walk.refused(f"{fields}", expected, lambda bad=bad: bank.transfer(bad))
        raw = bytearray(base.pack())
        raw[-1] = 1
        walk.refused("the reserved byte", "field_invalid", lambda: tally._done(bank.call(tally.TRANSFER, bytes(raw))))
        bank.transfer(deposit(alice, 100))
        walk.refused("none of them has used the id up", None, lambda: bank.transfer(base))


def check_known_ids(walk):
    with walk.logged_in() as bank, walk.logged_in() as other:
        alice, bob = walk.funded(bank), walk.open(bank)
        first = move(alice, bob, 300, user_data_128=1, user_data_64=2, user_data_32=3, flags=tally.WANT_BALANCES)
        reply = bank.transfer(first)
        bank.transfer(move(alice, bob, 1))
        again = other.transfer(first)
        walk.check("a repeat says so", again.repeated and not reply.repeated)
        walk.equal("a repeat has the first answer", (again.timestamp, again.lsn, again.amount, again.balances),
                   (reply.timestamp, reply.lsn, reply.amount, reply.balances))
        plain = bank.transfer(changed(first, flags=0))
        walk.check("asking for balances is no content", plain.repeated and plain.balances is None)
        walk.equal("paid once", bank.balance(bob).sums.balance, 301)
        for expected, fields in [
            ("exists_with_different_flags", {"flags": tally.BALANCING_DEBIT, "kind": tally.HOLD}),
            ("exists_with_different_kind", {"kind": tally.HOLD, "amount": 1}),
            ("exists_with_different_kind", {"kind": tally.HOLD, "timeout_s": 7}),
            ("exists_with_different_debit_account", {"debit_account_id": walk.fresh_id(), "amount": 1}),
            ("exists_with_different_credit_account", {"credit_account_id": walk.fresh_id(), "amount": 1}),
            ("exists_with_different_amount", {"amount": 301, "user_data_128": 0}),
            ("exists_with_different_user_data_128", {"user_data_128": 0, "user_data_64": 0}),
            ("exists_with_different_user_data_64", {"user_data_64": 0, "user_data_32": 0}),
            ("exists_with_different_user_data_32", {"user_data_32": 0, "currency": USD}),
            ("exists_with_different_currency", {"currency": USD, "code": 9}),
            ("exists_with_different_code", {"code": 9}),
        ]:
            walk.refused(f"{fields}", expected, lambda fields=fields: bank.transfer(changed(first, **fields)))
        poor = move(bob, alice, 1_000_000)
        walk.refused("refused for good", "insufficient_funds", lambda: bank.transfer(poor))
        bank.transfer(deposit(bob, 2_000_000))
        walk.refused("even where it would pass by now", "insufficient_funds", lambda: bank.transfer(poor))
        walk.refused("a new id passes", None, lambda: bank.transfer(changed(poor, id=new_id())))
        # Both at once, on two connections: one effect.
        twin = move(alice, bob, 7)
        before = bank.balance(bob).sums.balance
        one, two = bank.send(tally.TRANSFER, twin.pack()), other.send(tally.TRANSFER, twin.pack())
        replies = [bank.wait(one), other.wait(two)]
        walk.equal("twins have one effect", bank.balance(bob).sums.balance - before, 7)
        walk.equal("twins have one answer", len({(reply.lsn, reply.timestamp, reply.refusal) for reply in replies}), 1)


def check_holds(walk):
    with walk.logged_in() as bank:
        alice, bob = walk.funded(bank), walk.open(bank)
        held = hold(alice, bob, 4_000, flags=tally.WANT_BALANCES)
        reply = bank.transfer(held)
        walk.equal("held on both sides", [(s.debits_held, s.credits_held) for s in reply.balances], [(4_000, 0), (0, 4_000)])
        walk.equal("what is held cannot be spent", bank.balance(alice).available, 6_000)
        walk.equal("nor by the payee", bank.balance(bob).available, 0)
        walk.equal("found as done", bank.get_transfer(held.id).state, tally.DONE)
        for expected, fields in [
            ("reference_has_different_debit_account", {"debit_account_id": bob}),
            ("reference_has_different_credit_account", {"credit_account_id": alice}),
            ("reference_has_different_currency", {"currency": USD}),
            ("hold_has_different_code", {"code": 9}),
            ("amount_exceeds_hold", {"amount": 4_001}),
        ]:
            walk.refused(f"settle with {fields}", expected,
                         lambda fields=fields: bank.transfer(about(tally.SETTLE, held.id, **fields)))
        walk.refused("a void of another amount", "reference_has_different_amount",
                     lambda: bank.transfer(about(tally.VOID, held.id, amount=1)))
        walk.refused("a reversal of a hold", "reference_kind_mismatch",
                     lambda: bank.transfer(about(tally.REVERSE, held.id)))
        settle = about(tally.SETTLE, held.id, amount=1_500, flags=tally.WANT_BALANCES)
        reply = bank.transfer(settle)
        walk.equal("settled in part", (reply.amount, reply.balances),
                   (1_500, (tally.Sums(0, 1_500, 0, 10_000), tally.Sums(0, 0, 0, 1_500))))
        walk.equal("found as settled", bank.get_transfer(held.id).state, tally.SETTLED)
        walk.check("a settle is repeatable", bank.transfer(settle).repeated)
        walk.refused("settled twice", "hold_already_settled", lambda: bank.transfer(about(tally.SETTLE, held.id)))
        walk.refused("voided after", "hold_already_settled", lambda: bank.transfer(about(tally.VOID, held.id)))

        whole = hold(alice, bob, 500)
        bank.transfer(whole)
        walk.equal("settled in full", bank.transfer(about(tally.SETTLE, whole.id)).amount, 500)
        voided = hold(alice, bob, 700)
        bank.transfer(voided)
        walk.equal("voided", bank.transfer(about(tally.VOID, voided.id)).amount, 700)
        walk.equal("found as voided", bank.get_transfer(voided.id).state, tally.VOIDED)
        walk.refused("settled after", "hold_already_voided", lambda: bank.transfer(about(tally.SETTLE, voided.id)))
        walk.equal("all given back", bank.balance(alice).sums, tally.Sums(0, 2_000, 0, 10_000))

        walk.refused("no such hold", "reference_not_found", lambda: bank.transfer(about(tally.SETTLE, new_id())))
        paid = move(alice, bob, 10)
        bank.transfer(paid)
        walk.refused("not a hold", "reference_kind_mismatch", lambda: bank.transfer(about(tally.SETTLE, paid.id)))

        short = hold(alice, bob, 900, timeout_s=1)
        bank.transfer(short)
        deadline = time.monotonic() + 10
        while bank.get_transfer(short.id).state == tally.DONE and time.monotonic() < deadline:
            time.sleep(0.1)
        walk.equal("found as expired", bank.get_transfer(short.id).state, tally.EXPIRED)
        walk.equal("given back", bank.balance(alice).sums.debits_held, 0)
        walk.refused("settled too late", "hold_expired", lambda: bank.transfer(about(tally.SETTLE, short.id)))


def check_reversals(walk):
    with walk.logged_in() as bank:
        alice, bob = walk.funded(bank), walk.open(bank)
        paid = move(alice, bob, 600)
        bank.transfer(paid)
        walk.refused("another amount", "reference_has_different_amount",
                     lambda: bank.transfer(about(tally.REVERSE, paid.id, amount=1)))
        back = about(tally.REVERSE, paid.id, flags=tally.WANT_BALANCES)
        reply = bank.transfer(back)
        walk.equal("the opposite", (reply.amount, [sums.balance for sums in reply.balances]), (600, [0, 10_000]))
        walk.equal("found as reversed", bank.get_transfer(paid.id).state, tally.REVERSED)
        walk.refused("twice", "already_reversed", lambda: bank.transfer(about(tally.REVERSE, paid.id)))
        walk.refused("of a reversal", "reference_kind_mismatch", lambda: bank.transfer(about(tally.REVERSE, back.id)))
        walk.refused("of nothing", "reference_not_found", lambda: bank.transfer(about(tally.REVERSE, new_id())))
        spent = move(alice, bob, 600)
        bank.transfer(spent)
        bank.transfer(withdraw(bob, 600))
        walk.refused("of money that is gone", "insufficient_funds", lambda: bank.transfer(about(tally.REVERSE, spent.id)))
        paid_in = deposit(alice, 50)
        bank.transfer(paid_in)
        walk.equal("of a deposit", bank.transfer(about(tally.REVERSE, paid_in.id)).amount, 50)


def check_chains_and_batches(walk):
    with walk.logged_in() as bank:
        alice, bob = walk.funded(bank), walk.open(bank)
        held = hold(alice, bob, 100)
        chain = [held, about(tally.SETTLE, held.id), move(bob, alice, 40)]
        results = bank.chain(chain)
        walk.equal("a chain sees itself", names(results), [None, None, None])
        walk.equal("all of it", bank.balance(bob).sums.balance, 60)
        again = bank.chain(chain)
        walk.equal("a repeat has the first answers", [item.timestamp for item in again],
                   [item.timestamp for item in results])
        walk.check("and says so", all(item.repeated for item in again), again)
        broken = [move(alice, bob, 10), move(bob, alice, 1_000_000), move(alice, bob, 10)]
        walk.equal("one breaks all", names(bank.chain(broken)), ["chain_broken", "insufficient_funds", "chain_broken"])
        walk.equal("nothing moved", bank.balance(bob).sums.balance, 60)
        walk.refused("the ids are used up", "chain_broken", lambda: bank.transfer(broken[0]))
        walk.equal("again the same", names(bank.chain(broken)), ["chain_broken", "insufficient_funds", "chain_broken"])
        twice = move(alice, bob, 10)
        walk.check("an id twice", "id_already_used" in names(bank.chain([twice, twice])))
        walk.refused("no entry", "count_invalid", lambda: bank.chain([]))
        walk.refused("257 entries", "count_invalid", lambda: bank.chain([move(alice, bob, 1) for _ in range(257)]))
        walk.equal("256 entries", set(names(bank.chain([move(alice, bob, 1) for _ in range(256)]))), {None})

        before = bank.balance(bob).sums.balance
        linked = move(alice, bob, 10, flags=tally.LINKED)
        batch = [
            move(alice, bob, 1),
            linked,
            move(bob, alice, 10_000_000),
            move(alice, bob, 2),
            changed(move(alice, bob), amount=0),
            move(alice, bob, 4),
        ]
        walk.equal("each for itself, chains whole", names(bank.batch(batch)),
                   [None, "chain_broken", "insufficient_funds", None, "amount_must_not_be_zero", None])
        walk.equal("what was done", bank.balance(bob).sums.balance - before, 7)
        again = bank.batch(batch)
        walk.equal("a batch can be sent again", names(again),
                   [None, "chain_broken", "insufficient_funds", None, "amount_must_not_be_zero", None])
        walk.equal("with one effect", bank.balance(bob).sums.balance - before, 7)
        open_end = [move(alice, bob, 1), move(alice, bob, 1, flags=tally.LINKED)]
        walk.equal("an open chain", names(bank.batch(open_end))[-1], "chain_open")
        walk.refused("no entry", "count_invalid", lambda: bank.batch([]))
        walk.refused("8,191 entries", "count_invalid", lambda: bank.batch([move(alice, bob, 1)] * 8191))
        bank.transfer(deposit(alice, 10_000))
        before = bank.balance(bob).sums.balance
        full = [move(alice, bob, 1) for _ in range(8190)]
        walk.equal("8,190 entries", set(names(bank.batch(full))), {None})
        walk.equal("all paid", bank.balance(bob).sums.balance - before, 8190)


def check_state_refusals(walk):
    with walk.logged_in() as bank:
        alice, bob = walk.funded(bank), walk.open(bank)
        dollars = walk.open(bank, currency=USD)
        nobody = walk.fresh_id()
        for name, expected, transfer in [
            ("no payer", "debit_account_not_found", move(nobody, bob)),
            ("no payee", "credit_account_not_found", move(alice, nobody)),
            ("two currencies", "accounts_currency_mismatch", move(alice, dollars)),
            ("another currency", "transfer_currency_mismatch", move(alice, bob, currency=USD)),
            ("a deposit in another currency", "transfer_currency_mismatch", deposit(alice, 5, currency=USD)),
            ("too little", "insufficient_funds", move(alice, bob, 10_001)),
            ("too little to hold", "insufficient_funds", hold(alice, bob, 10_001)),
        ]:
            walk.refused(name, expected, lambda transfer=transfer: bank.transfer(transfer))
            found = bank.get_transfer(transfer.id)
            walk.equal(f"{name}: recorded", (found.state, tally.REFUSALS[found.reply.refusal]),
                       (tally.REFUSED_FOR_GOOD, expected))

        free, free_too = walk.open(bank, 2, currency=CHF, flags=0)
        bank.transfer(move(free, free_too, AMOUNT_MAX, currency=CHF))
        walk.refused("more than 64 bits", "overflows_debits_posted",
                     lambda: bank.transfer(move(free, free_too, 1, currency=CHF)))
        held = hold(free_too, free, AMOUNT_MAX, currency=CHF)
        bank.transfer(held)
        walk.refused("more than 64 bits held", "overflows_debits_held",
                     lambda: bank.transfer(hold(free_too, free, 1, currency=CHF)))
        walk.refused("more than 64 bits together", "overflows_debits",
                     lambda: bank.transfer(move(free_too, free, 1, currency=CHF)))
        bank.transfer(about(tally.SETTLE, held.id))
        walk.equal("back to nothing", bank.balance(free).sums.balance, 0)


def check_limits(walk):
    with walk.logged_in() as bank:
        alice, bob = walk.open(bank, 2)
        walk.refused("nothing there", "insufficient_funds", lambda: bank.transfer(move(alice, bob, 1)))
        bank.set_limits(alice, overdraft=500)
        walk.equal("an overdraft is available", bank.balance(alice).available, 500)
        walk.refused("within it", None, lambda: bank.transfer(move(alice, bob, 500)))
        walk.refused("beyond it", "insufficient_funds", lambda: bank.transfer(move(alice, bob, 1)))
        bank.set_limits(alice, overdraft=100)
        walk.equal("beyond a lowered one, nothing is available", bank.balance(alice).available, 0)
        walk.equal("limits are read back", bank.account(alice).open.overdraft, 100)
        bank.transfer(deposit(alice, 10_000))
        bank.set_limits(alice, overdraft=0, day_limit=700)
        spent = bank.account(alice).day_spent
        walk.equal("the day counts what was spent", spent, 500)
        walk.equal("available under the day's limit", bank.balance(alice).available, 200)
        walk.refused("over the day's limit", "day_limit_exceeded", lambda: bank.transfer(move(alice, bob, 201)))
        walk.refused("up to the day's limit", None, lambda: bank.transfer(move(alice, bob, 200)))
        walk.refused("no such account", "account_not_found", lambda: bank.set_limits(walk.fresh_id(), 1))

        reply = bank.transfer(move(bob, alice, 99_999, flags=tally.BALANCING_DEBIT))
        walk.equal("a balancing debit takes what is there", reply.amount, 700)
        debtor = walk.open(bank, flags=tally.CREDITS_LIMITED)
        walk.refused("credits over debits", "exceeds_debits", lambda: bank.transfer(deposit(debtor, 1)))
        bank.transfer(move(debtor, bob, 300))
        reply = bank.transfer(deposit(debtor, 1_000, flags=tally.BALANCING_CREDIT))
        walk.equal("a balancing credit fills up", reply.amount, 300)


def check_account_life(walk):
    with walk.logged_in() as bank:
        alice, bob = walk.funded(bank), walk.open(bank)
        held = hold(alice, bob, 100)
        bank.transfer(held)
        frozen = bank.freeze_account(alice)
        walk.check("freezing is recorded", frozen.timestamp > 0)
        walk.equal("frozen", bank.balance(alice).status, tally.FROZEN)
        walk.refused("twice", "account_already_frozen", lambda: bank.freeze_account(alice))
        walk.refused("no debit", "debit_account_frozen", lambda: bank.transfer(move(alice, bob, 1)))
        walk.refused("no credit", "credit_account_frozen", lambda: bank.transfer(deposit(alice, 1)))
        walk.refused("an older hold is settled", None, lambda: bank.transfer(about(tally.SETTLE, held.id)))
        bank.unfreeze_account(alice)
        walk.refused("not frozen", "account_not_frozen", lambda: bank.unfreeze_account(alice))
        walk.refused("moves again", None, lambda: bank.transfer(move(alice, bob, 1)))
        walk.refused("not empty", "account_not_empty", lambda: bank.close_account(bob))
        bank.transfer(withdraw(bob, 101))
        bank.close_account(bob)
        walk.equal("closed", bank.balance(bob).status, tally.CLOSED)
        walk.refused("twice", "account_closed", lambda: bank.close_account(bob))
        walk.refused("no freeze", "account_closed", lambda: bank.freeze_account(bob))
        walk.refused("no credit", "credit_account_closed", lambda: bank.transfer(move(alice, bob, 1)))
        walk.refused("no debit", "debit_account_closed", lambda: bank.transfer(move(bob, alice, 1)))
        for name, call in [("close", bank.close_account), ("freeze", bank.freeze_account),
                           ("unfreeze", bank.unfreeze_account)]:
            walk.refused(f"{name} what is not there", "account_not_found", lambda call=call: call(walk.fresh_id()))


def check_inquiries(walk):
    with walk.logged_in() as bank:
        alice, bob = walk.funded(bank), walk.open(bank)
        paid = move(alice, bob, 42, user_data_128=7, user_data_64=8, user_data_32=9)
        reply = bank.transfer(paid)
        found = bank.get_transfer(paid.id)
        walk.equal("as it was asked for", found.transfer, paid)
        walk.equal("as it was answered", (found.reply.lsn, found.reply.timestamp, found.reply.amount),
                   (reply.lsn, reply.timestamp, reply.amount))
        walk.equal("sums after it", (found.debit, found.credit), (tally.Sums(0, 42, 0, 10_000), tally.Sums(0, 0, 0, 42)))
        walk.refused("an unknown id", "transfer_not_found", lambda: bank.get_transfer(new_id()))
        late = move(alice, bob, 42)
        walk.refused("an unused id is burnt", None, lambda: bank.cancel_id(late.id))
        walk.refused("again", None, lambda: bank.cancel_id(late.id))
        walk.refused("and never used", "id_cancelled", lambda: bank.transfer(late))
        walk.equal("found as cancelled", bank.get_transfer(late.id).state, tally.CANCELLED)
        walk.refused("too late", "id_already_used", lambda: bank.cancel_id(paid.id))
        walk.refused("id 0", "id_must_not_be_zero", lambda: bank.cancel_id(0))
        walk.refused("id all ones", "id_must_not_be_max", lambda: bank.get_transfer(ALL_ONES))


def check_roles(walk):
    customer, other = walk.user("customer"), walk.user("customer", 1)
    if not walk.check("connect.json names two customers", customer and other):
        return
    with walk.logged_in() as bank, walk.logged_in(customer) as mine, walk.logged_in(other) as theirs:
        own = walk.funded(bank, owner=customer["customer_id"])
        foreign = walk.funded(bank, owner=other["customer_id"])
        walk.refused("a customer pays out of an own account", None, lambda: mine.transfer(move(own, foreign, 10)))
        walk.refused("not out of others'", "not_owner", lambda: mine.transfer(move(foreign, own, 10)))
        walk.refused("reads an own one", None, lambda: mine.balance(own))
        walk.refused("not others'", "not_permitted", lambda: mine.balance(foreign))
        walk.refused("not others'", "not_permitted", lambda: mine.account(foreign))
        paid = move(own, foreign, 5)
        mine.transfer(paid)
        walk.equal("both sides may ask", mine.get_transfer(paid.id).state, theirs.get_transfer(paid.id).state)
        between = move(walk.funded(bank), walk.open(bank), 5)
        bank.transfer(between)
        walk.check("others may not", refusal(lambda: mine.get_transfer(between.id)) in ("not_permitted", "transfer_not_found"))
        held = hold(own, foreign, 50)
        mine.transfer(held)
        walk.refused("the payer cannot take a hold back", "not_owner", lambda: mine.transfer(about(tally.VOID, held.id)))
        walk.refused("the payee settles", None, lambda: theirs.transfer(about(tally.SETTLE, held.id)))
        for name, call in [
            ("open", lambda: mine.open_accounts([tally.AccountOpen(walk.fresh_id(), EUR)])),
            ("close", lambda: mine.close_account(own)),
            ("freeze", lambda: mine.freeze_account(own)),
            ("unfreeze", lambda: mine.unfreeze_account(own)),
            ("limits", lambda: mine.set_limits(own, 10**9)),
            ("deposit", lambda: mine.transfer(deposit(own, 10))),
            ("withdraw", lambda: mine.transfer(withdraw(own, 10))),
            ("close by a hold", lambda: mine.transfer(hold(own, foreign, 0, flags=tally.CLOSING_DEBIT))),
            ("import", lambda: mine.transfer(move(own, foreign, 1, user_data_64=5, flags=tally.IMPORTED))),
            ("deposit in a batch", lambda: mine.batch([move(own, foreign, 1), deposit(own, 10)])),
            ("deposit in a chain", lambda: mine.chain([move(own, foreign, 1), deposit(own, 10)])),
            ("feed", lambda: mine.read_feed(0)),
        ]:
            walk.refused(f"a customer may not: {name}", "not_permitted", call)
    auditor = walk.user("auditor")
    if auditor:
        with walk.logged_in(auditor) as eyes:
            walk.refused("an auditor reads", None, lambda: eyes.balance(own))
            walk.refused("an auditor follows", None, lambda: eyes.read_feed(0, 1))
            walk.refused("an auditor pays nothing", "not_permitted", lambda: eyes.transfer(move(own, foreign, 1)))
            walk.refused("an auditor changes nothing", "not_permitted", lambda: eyes.freeze_account(own))


def read_to_the_end(bank, position, count_max=0):
    """All pages from a position on: entries and the position behind them."""
    entries = []
    while True:
        page = bank.read_feed(position, count_max)
        entries += page.entries
        if not page.entries:
            return entries, page.next
        position = page.next


def check_feed(walk):
    with walk.logged_in() as bank, walk.logged_in() as writer:
        everything, end = read_to_the_end(bank, 0)
        lsns = [entry.lsn for entry in everything]
        walk.check("from the beginning, in order", lsns == sorted(set(lsns)) and len(lsns) > 0)
        alice, bob = walk.funded(writer), walk.open(writer)
        paid, poor, burnt = move(alice, bob, 5), move(bob, alice, 10**9), new_id()
        held = hold(alice, bob, 6, timeout_s=1)
        writer.transfer(paid)
        refusal(lambda: writer.transfer(poor))
        writer.cancel_id(burnt)
        writer.transfer(held)
        writer.freeze_account(bob)
        deadline = time.monotonic() + 10
        while writer.get_transfer(held.id).state == tally.DONE and time.monotonic() < deadline:
            time.sleep(0.1)
        news, later = read_to_the_end(bank, end)
        by_id = {entry.transfer.id: entry for entry in news if entry.kind in (tally.FEED_TRANSFER, tally.FEED_CANCELLED)}
        walk.check("resumes where it was", bool(news) and all(entry.lsn >= end for entry in news))
        walk.equal("a payment", (by_id[paid.id].transfer, by_id[paid.id].credit), (paid, tally.Sums(0, 0, 0, 5)))
        walk.equal("a refusal", tally.REFUSALS.get(by_id[poor.id].reply.refusal), "insufficient_funds")
        walk.equal("a cancelled id", by_id[burnt].kind, tally.FEED_CANCELLED)
        expired = [entry.transfer.id for entry in news if entry.kind == tally.FEED_EXPIRED]
        walk.check("an expiry", held.id in expired, expired)
        changes = [(entry.transfer.debit_account_id, entry.account_change) for entry in news
                   if entry.kind == tally.FEED_ACCOUNT]
        walk.check("accounts: opened and frozen", {(alice, 1), (bob, 1), (bob, 3)} <= set(changes), changes)
        singly, end_singly = read_to_the_end(bank, end, count_max=2)
        walk.equal("small pages say the same", ([e.lsn for e in singly], end_singly), ([e.lsn for e in news], later))
        page = bank.read_feed(end, 2)
        walk.equal("no more than asked for", len(page.entries), 2)
        started = time.monotonic()
        page = bank.read_feed(later, wait_ms=300)
        waited = time.monotonic() - started
        walk.check("waits for the first entry", page.entries == [] and 0.25 < waited < 5, f"{waited:.2f} s")
        request = bank.send(tally.READ_FEED, tally.FeedRead(page.next, 0, 20_000).pack())
        writer.transfer(deposit(alice, 1))
        started = time.monotonic()
        page = bank.wait(request)
        walk.check("and wakes up", len(page.entries) == 1 and time.monotonic() - started < 5)
        walk.refused("beyond the end", "position_out_of_range", lambda: bank.read_feed(1 << 62))
        walk.refused("a wait over a minute", "field_invalid", lambda: bank.read_feed(0, 1, 60_001))


def check_pipelining(walk):
    with walk.logged_in() as bank:
        alice, bob = walk.funded(bank, 1_000_000), walk.open(bank)
        count = min(500, bank.hello_reply.in_flight_max)
        transfers = [move(alice, bob, 1 + index) for index in range(count)]
        requests = bank.send_many([(tally.TRANSFER, transfer.pack()) for transfer in transfers])
        replies = [bank.wait(request) for request in requests]
        walk.check("each reply is for its request", all(r.amount == 1 + i for i, r in enumerate(replies)))
        walk.equal("all were done", sum(reply.refusal == 0 for reply in replies), count)
        walk.equal("distinct positions", len({reply.lsn for reply in replies}), count)
        walk.equal("the sum", bank.balance(bob).sums.balance, count * (count + 1) // 2)
        # More than may wait at once: held back, not lost.
        flood = bank.hello_reply.in_flight_max + 200
        requests = bank.send_many([(tally.GET_BALANCE, tally.u128(bob))] * flood)
        answered = [refusal(lambda request=request: bank.wait(request)) for request in requests]
        walk.check("a flood is answered", set(answered) <= {None, "in_flight_limit", "busy"}, set(answered))
        request = bank.send(tally.TRANSFER, move(alice, bob, 1).pack(), trace_id=1 << 127, deadline_ms=10_000)
        walk.equal("with trace and deadline", bank.wait(request).refusal, 0)


# Frames that are wrong, each on a connection of its own.


def closing_refusal(connection, timeout_s=STALL_S + 10):
    """The name of the refusal with which the branch closes this connection, or "" where it just closes."""
    connection.sock.settimeout(timeout_s)
    name = ""
    try:
        while True:
            message_type, _, body = connection.read_frame()
            try:
                tally.decode_reply(message_type, body)
            except Refused as refused:
                name = refused.name
    except tally.ConnectionLost:
        return name
    except TimeoutError:
        return f"still open after {timeout_s} s, last refusal: {name!r}"


def header(length=40, message_type=tally.PING, version=1, reserved=0, reserved_2=0):
    return tally.HEADER.pack(length, message_type, version, reserved, 9, bytes(16), 0, reserved_2)


def check_broken_headers(walk):
    for name, frame, expected in [
        ("length 0", header(length=0), "frame_invalid"),
        ("length 39", header(length=39), "frame_invalid"),
        ("over the limit", header(length=(1 << 20) + 1), "frame_invalid"),
        ("4 GiB", header(length=(1 << 32) - 1), "frame_invalid"),
        ("version 2", header(version=2), "version_unsupported"),
        ("a reserved byte", header(reserved=1), "frame_invalid"),
        ("reserved bytes", header(reserved_2=1), "frame_invalid"),
    ]:
        with walk.logged_in() as bank:
            bank.send_raw(frame)
            walk.equal(f"{name} after login", closing_refusal(bank), expected)
        with walk.connect(hello=False) as bank:
            bank.send_raw(frame)
            walk.equal(f"{name} as first frame", closing_refusal(bank), expected)
    with walk.connect(hello=False) as bank:
        bank.send_raw(secrets.token_bytes(3) + b"\xff" + secrets.token_bytes(400))
        walk.equal("garbage", closing_refusal(bank), "frame_invalid")
    with walk.connect(hello=False) as bank:
        bank.send_raw(header(length=100_000, message_type=tally.HELLO))
        walk.equal("a long frame before login", closing_refusal(bank), "login_required")


def check_wrong_frames(walk):
    with walk.logged_in() as bank:
        for name, expected, message_type, body in [
            ("unknown type", "message_type_unknown", 0x0999, b""),
            ("a reply's type", "message_type_unknown", 0x8003, b""),
            ("a body for a ping", "body_len_invalid", tally.PING, b"x"),
            ("a short transfer", "body_len_invalid", tally.TRANSFER, bytes(111)),
            ("a long transfer", "body_len_invalid", tally.TRANSFER, bytes(113)),
            ("half an entry", "body_len_invalid", tally.BATCH, bytes(112 + 56)),
            ("an empty batch", "count_invalid", tally.BATCH, b""),
            ("a short reference", "body_len_invalid", tally.GET_BALANCE, bytes(15)),
        ]:
            walk.refused(name, expected, lambda message_type=message_type, body=body: bank.call(message_type, body))
        walk.refused("the session goes on", None, bank.ping)
    with walk.connect(hello=False) as bank:
        bank.send(tally.PING)
        walk.equal("no hello", closing_refusal(bank), "hello_expected")
    with walk.connect(hello=False) as bank:
        bank.send(tally.HELLO, tally.hello_body(2, 3))
        walk.equal("versions of the future", closing_refusal(bank), "version_unsupported")
    with walk.connect(hello=False) as bank:
        walk.equal("a range with ours in it", bank.hello(1, 9).version, 1)
    with walk.connect(hello=False) as bank:
        bank.send(tally.HELLO, struct.pack("<8sBB6x", b"TALLYSTX", 1, 1))
        walk.equal("another magic", closing_refusal(bank), "hello_expected")
    with walk.connect() as bank:
        walk.refused("no login", "login_required", bank.status)
        walk.refused("a ping needs none", None, bank.ping)
        walk.refused("a second hello", "field_invalid", bank.hello)
        walk.refused("a login of another method", "field_invalid", lambda: bank.call(tally.LOGIN, bytes([3]) + bytes(7)))
        walk.refused("a login in time", None, lambda: bank.login(walk.teller["name"], walk.teller["password"]))


def check_tls(walk):
    context = ssl.create_default_context(cafile=walk.described["ca_file"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        raw = socket.create_connection((walk.host, walk.port), timeout=5)
        with context.wrap_socket(raw, server_hostname=walk.described["server_name"]):
            walk.check("TLS 1.2 is refused", False)
    except (ssl.SSLError, OSError):
        walk.check("TLS 1.2 is refused", True)
    with socket.create_connection((walk.host, walk.port), timeout=STALL_S + 10) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: bank\r\n\r\n")
        try:
            while raw.recv(4096):
                pass
            walk.check("plain text is closed", True)
        except TimeoutError:
            walk.check("plain text is closed", False)
        except OSError:
            walk.check("plain text is closed", True)


def check_stalls(walk):
    """Peers that stall, all at the same time, while another one is served."""
    started = time.monotonic()
    with walk.logged_in() as busy:
        half = walk.logged_in()
        half.send_raw(header(length=152, message_type=tally.TRANSFER) + bytes(50))
        sliver = walk.logged_in()
        sliver.send_raw(header()[:7])
        silent = walk.connect(hello=False)
        shy = walk.connect()
        mute = socket.create_connection((walk.host, walk.port), timeout=STALL_S + 10)
        glutton = flood_without_reading(walk)
        account = walk.open(busy)
        for _ in range(20):
            busy.transfer(deposit(account, 1))
        walk.check("others are served meanwhile", time.monotonic() - started < STALL_S)
        walk.equal("half a frame", closing_refusal(half), "frame_stalled")
        walk.equal("half a header", closing_refusal(sliver), "frame_stalled")
        walk.equal("no hello", closing_refusal(silent), "login_required")
        walk.equal("no login", closing_refusal(shy), "login_required")
        try:
            walk.equal("no TLS handshake", mute.recv(1), b"")
        except TimeoutError:
            walk.check("no TLS handshake", False, "- still open")
        except OSError:
            walk.check("no TLS handshake", True)
        walk.check("replies that are not read end the connection", was_dropped(glutton, STALL_S + 20))
        walk.check("within a bounded time", time.monotonic() - started < 3 * STALL_S + 15)
        walk.refused("the branch goes on", None, lambda: busy.transfer(deposit(account, 1)))
        for connection in (half, sliver, silent, shy, glutton):
            connection.close()
        mute.close()


def flood_without_reading(walk):
    """Asks for more than the buffers on the way can hold, and reads nothing."""
    bank = walk.logged_in()
    bank.sock.settimeout(2)
    frame = b"".join(tally.encode_frame(tally.GET_STATUS, index) for index in range(1, 500))
    try:
        for _ in range(1_000):
            bank.send_raw(frame)
    except (tally.ConnectionLost, TimeoutError):
        pass
    return bank


def was_dropped(connection, timeout_s):
    """Whether the peer gives up on us. We must not read: that would be progress."""
    deadline = time.monotonic() + timeout_s
    connection.sock.setblocking(False)
    while time.monotonic() < deadline:
        error = connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        state = connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        # 1 is TCP_ESTABLISHED; CLOSE_WAIT (8) and CLOSE (7) say that the peer has closed or reset.
        if error or state != 1:
            return True
        time.sleep(0.2)
    return False


CHECKS = [
    check_handshake, check_login, check_status, check_open_accounts, check_linked_openings, check_payments,
    check_malformed_transfers, check_known_ids, check_holds, check_closing_holds, check_reversals,
    check_chains_and_batches, check_imports, check_state_refusals, check_limits,
    check_account_life, check_inquiries, check_roles, check_feed, check_pipelining, check_broken_headers,
    check_wrong_frames, check_tls, check_stalls,
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("connect", help="the connect.json that `tally up` wrote")
    parser.add_argument("--only", help="only the checks with this in their name")
    parser.add_argument("--verbose", action="store_true", help="print what passed, too")
    options = parser.parse_args()
    with open(options.connect, encoding="utf-8") as file:
        walk = Walk(json.load(file), options.verbose)
    for check in CHECKS:
        walk.where = check.__name__.removeprefix("check_")
        if options.only and options.only not in walk.where:
            continue
        started, failed = time.monotonic(), walk.failed
        try:
            check(walk)
        except Exception:
            walk.failed += 1
            print(f"  FAIL  {walk.where}: ended early\n{traceback.format_exc()}")
        state = "ok" if walk.failed == failed else "FAILED"
        print(f"{walk.where:<24}{state:<8}{time.monotonic() - started:6.1f} s")
    print(f"{walk.passed} passed, {walk.failed} failed")
    return 1 if walk.failed else 0


if __name__ == "__main__":
    sys.exit(main())
