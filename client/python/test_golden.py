#!/usr/bin/env python3
"""The client's encoders and decoders against the golden bytes of the protocol: needs no server."""

import pathlib
import re
import unittest

import tallystick as tally

GOLDEN = pathlib.Path(__file__).parent / "../../protocol/tests/golden"
TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
REQUEST_ID = 0x11223344
ALICE, BOB = tally.account_id(7, 0xA11CE), tally.account_id(7, 0xB0B)
PAYMENT, HOLD_ID, SETTLE_ID = (0x01920000000070008000000000000000 + n for n in (1, 2, 3))
TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhbmEifQ.c2lnbmF0dXJl"
USER_DATA = {
    "user_data_128": 0x0102030405060708090A0B0C0D0E0F10,
    "user_data_64": 0x1112131415161718,
    "user_data_32": 0x191A1B1C,
}

OPENS = [
    tally.AccountOpen(ALICE, 978, owner=1001, overdraft=50_000, code=11, **USER_DATA),
    tally.AccountOpen(BOB, 978, owner=1002, overdraft=0, code=11, **USER_DATA),
]
TRANSFERS = [
    tally.Transfer(PAYMENT, tally.MOVE, ALICE, BOB, amount=1234, currency=978, code=21, flags=tally.WANT_BALANCES,
                   **USER_DATA),
    tally.Transfer(HOLD_ID, tally.HOLD, ALICE, BOB, amount=5000, currency=978, code=21, timeout_s=3600,
                   flags=tally.LINKED | tally.BALANCING_DEBIT, **USER_DATA),
    tally.Transfer(SETTLE_ID, tally.SETTLE, reference=HOLD_ID, amount=4000, **USER_DATA),
]
OPENED, PAID, CLOSED = (1_600_000_000_000_000_000 + n * 10**9 for n in (0, 1, 2))
LINKED_OPENS = [
    tally.AccountOpen(ALICE, 978, owner=1001, overdraft=50_000, code=11, **{**USER_DATA, "user_data_64": OPENED},
                      flags=tally.DEBITS_LIMITED | tally.ACCOUNT_IMPORTED | tally.ACCOUNT_LINKED),
    tally.AccountOpen(BOB, 978, owner=1002, overdraft=0, code=11, **{**USER_DATA, "user_data_64": OPENED},
                      flags=tally.DEBITS_LIMITED | tally.ACCOUNT_IMPORTED | tally.OPENED_FROZEN),
]
IMPORTED = [
    tally.Transfer(PAYMENT, tally.MOVE, ALICE, BOB, amount=1234, currency=978, code=21, flags=tally.IMPORTED,
                   **{**USER_DATA, "user_data_64": PAID}),
    tally.Transfer(HOLD_ID, tally.HOLD, ALICE, BOB, amount=5000, currency=978, code=21,
                   flags=tally.IMPORTED | tally.BALANCING_DEBIT | tally.CLOSING_DEBIT,
                   **{**USER_DATA, "user_data_64": CLOSED}),
]
REQUESTS = {
    "hello": (tally.HELLO, tally.hello_body()),
    "login": (tally.LOGIN, tally.login_body("correct horse", "ana")),
    "login_token": (tally.LOGIN, tally.login_body(TOKEN)),
    "ping": (tally.PING, b""),
    "get_status": (tally.GET_STATUS, b""),
    "get_routes": (tally.GET_ROUTES, b""),
    "open_accounts": (tally.OPEN_ACCOUNTS, OPENS[0].pack() + OPENS[1].pack()),
    "open_accounts_linked": (tally.OPEN_ACCOUNTS, LINKED_OPENS[0].pack() + LINKED_OPENS[1].pack()),
    "close_account": (tally.CLOSE_ACCOUNT, tally.u128(ALICE)),
    "freeze_account": (tally.FREEZE_ACCOUNT, tally.u128(ALICE)),
    "unfreeze_account": (tally.UNFREEZE_ACCOUNT, tally.u128(ALICE)),
    "set_limits": (tally.SET_LIMITS, tally.LimitsSet(ALICE, 70_000, 1_000_000).pack()),
    "transfer": (tally.TRANSFER, TRANSFERS[0].pack()),
    "chain": (tally.CHAIN, TRANSFERS[1].pack() + TRANSFERS[2].pack()),
    "batch": (tally.BATCH, b"".join(transfer.pack() for transfer in TRANSFERS)),
    "batch_imported": (tally.BATCH, IMPORTED[0].pack() + IMPORTED[1].pack()),
    "cancel_id": (tally.CANCEL_ID, tally.u128(PAYMENT)),
    "get_balance": (tally.GET_BALANCE, tally.u128(ALICE)),
    "get_balance_after": (tally.GET_BALANCE, tally.u128(ALICE) + tally.read_after(1_767_225_600_123_456_789)),
    "get_account": (tally.GET_ACCOUNT, tally.u128(ALICE)),
    "get_transfer": (tally.GET_TRANSFER, tally.u128(PAYMENT)),
    "read_feed": (tally.READ_FEED, tally.FeedRead(4096, 500, 30_000).pack()),
}


def golden(name):
    text = re.sub(r"#.*", "", (GOLDEN / f"{name}.hex").read_text())
    return bytes.fromhex("".join(text.split()))


def reply_of(name):
    frame = golden(name)
    length, message_type, version, _, request_id, trace_id, _, _ = tally.HEADER.unpack(frame[: tally.HEADER.size])
    assert (length, version, request_id) == (len(frame), 1, REQUEST_ID), name
    assert trace_id == tally.u128(TRACE_ID), name
    return message_type, frame[tally.HEADER.size :]


def decoded(name):
    return tally.decode_reply(*reply_of(name))


class Golden(unittest.TestCase):
    def test_every_request_has_the_golden_bytes(self):
        for name, (message_type, body) in REQUESTS.items():
            frame = tally.encode_frame(message_type, REQUEST_ID, body, TRACE_ID, 250)
            self.assertEqual(frame, golden(name), name)

    def test_every_golden_file_is_known(self):
        names = {path.stem for path in GOLDEN.glob("*.hex")}
        replies = {name for name in names if golden(name)[5] & 0x80}
        self.assertEqual(names - replies, set(REQUESTS))
        for name in replies - {"refused"}:
            decoded(name)

    def test_structs_of_replies_pack_to_the_golden_bytes(self):
        for name in ("status_reply", "balance_reply", "account_reply", "transfer_found_reply", "close_account_reply"):
            self.assertEqual(decoded(name).pack(), reply_of(name)[1], name)
        for name in ("open_accounts_reply", "chain_reply", "batch_reply"):
            self.assertEqual(b"".join(item.pack() for item in decoded(name)), reply_of(name)[1], name)
        page = decoded("feed_page")
        entries = b"".join(entry.pack() for entry in page.entries)
        self.assertEqual(page.pack() + entries, reply_of("feed_page")[1])

    def test_values_of_replies(self):
        hello = decoded("hello_reply")
        self.assertEqual((hello.version, hello.branch_id, hello.batch_len_max, hello.in_flight_max), (1, 7, 8190, 1024))
        login = decoded("login_reply")
        self.assertEqual((login.role, login.customer_id, login.token), (2, 1001, TOKEN))
        self.assertIsNone(decoded("pong"))
        routes = decoded("routes_reply")
        self.assertEqual(routes.version, hello.routes_version)
        self.assertEqual([(route.branch_id, route.status, route.endpoint) for route in routes.routes],
                         [(7, 1, "berlin.bank.example:7001"), (9, 3, "[2001:db8::9]:7001")])
        reply = decoded("transfer_reply_with_balances")
        self.assertEqual([sums.balance for sums in reply.balances], [50_000 - 1_234, 11_234 - 10])
        self.assertIsNone(decoded("transfer_reply").balances)
        self.assertEqual([item.refusal for item in decoded("batch_reply")], [0, 229, 0])
        self.assertEqual([item.repeated for item in decoded("batch_reply")], [False, False, True])
        self.assertEqual([item.refusal for item in decoded("chain_reply")], [200, 215])
        balance = decoded("balance_reply")
        self.assertEqual((balance.id, balance.available, balance.overdraft, balance.status), (ALICE, 98_666, 50_000, 1))
        account = decoded("account_reply")
        self.assertEqual((account.open, account.day, account.status), (OPENS[0], 20_717, tally.FROZEN))
        found = decoded("transfer_found_reply")
        self.assertEqual((found.transfer, found.state), (TRANSFERS[0], tally.REVERSED))
        page = decoded("feed_page")
        self.assertEqual((page.next, page.durable), (4_552, 8_192))
        self.assertEqual([(entry.kind, entry.account_change) for entry in page.entries], [(1, 0), (4, 3)])

    def test_a_refusal_is_raised(self):
        with self.assertRaises(tally.Refused) as caught:
            decoded("refused")
        refused = caught.exception
        self.assertEqual((refused.name, refused.text, refused.retry_after_ms), ("busy", "the queue is full", 5))
        self.assertFalse(refused.id_is_used_up)

    def test_bodies_of_other_lengths_are_errors(self):
        for name in ("status_reply", "balance_reply", "feed_page", "batch_reply", "login_reply", "transfer_reply",
                     "routes_reply"):
            message_type, body = reply_of(name)
            for wrong in (body[:-1], body + b"\0"):
                with self.assertRaises(tally.ProtocolError, msg=name):
                    tally.decode_reply(message_type, wrong)

    def test_fresh_ids_are_version_7(self):
        ids = {tally.new_id() for _ in range(1_000)}
        self.assertEqual(len(ids), 1_000)
        for one in ids:
            self.assertEqual((one >> 76 & 0xF, one >> 62 & 3), (7, 2))


if __name__ == "__main__":
    unittest.main()
