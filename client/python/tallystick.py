"""A client for a Tallystick branch, written from docs/PROTOCOL.md alone. Standard library only.

    with Connection.open("127.0.0.1", 7400, "ca.pem") as bank:
        bank.login("teller", "secret")
        bank.transfer(Transfer(id=new_id(), kind=DEPOSIT, credit_account_id=account, amount=10_000, currency=978, code=1))

Each method sends one request and waits for its reply. To pipeline, call `send` as often as you like and then
`wait` for each request id: replies are kept until they are asked for, whatever their order.

A refusal is raised as `Refused`. When the connection breaks before a reply, `ConnectionLost` is raised and the
outcome is unknown: send the same transfer again with the same id, or ask with `get_transfer`, or burn the id
with `cancel_id` - never pay again under a new id.
"""

import json
import os
import socket
import ssl
import struct
import time
from dataclasses import dataclass

PROTOCOL_VERSION = 1
ALPN = "tallystick/1"
HEADER = struct.Struct("<IHBBQ16sII")
FRAME_LEN_BYTES_MAX = 1 << 20
UNLIMITED = (1 << 64) - 1

HELLO, LOGIN, PING, GET_STATUS, GET_ROUTES = 0x0001, 0x0002, 0x0003, 0x0004, 0x0005
OPEN_ACCOUNTS, CLOSE_ACCOUNT, FREEZE_ACCOUNT, UNFREEZE_ACCOUNT, SET_LIMITS = 0x0010, 0x0011, 0x0012, 0x0013, 0x0014
TRANSFER, CHAIN, BATCH, CANCEL_ID = 0x0020, 0x0021, 0x0022, 0x0023
GET_BALANCE, GET_ACCOUNT, GET_TRANSFER, READ_FEED = 0x0030, 0x0031, 0x0032, 0x0040
REPLY_BIT, REFUSED = 0x8000, 0xFFFF

MOVE, DEPOSIT, WITHDRAW, HOLD, SETTLE, VOID, REVERSE = range(1, 8)
LINKED, BALANCING_DEBIT, BALANCING_CREDIT, WANT_BALANCES = 1, 2, 4, 1 << 15
CLOSING_DEBIT, CLOSING_CREDIT, IMPORTED = 8, 16, 32
DEBITS_LIMITED, CREDITS_LIMITED, ACCOUNT_IMPORTED, OPENED_FROZEN, OPENED_CLOSED = 1, 2, 4, 8, 16
ACCOUNT_LINKED = 1 << 15
CUSTOMER, CASH, SETTLEMENT, FEE, SUSPENSE = range(1, 6)
OPEN, FROZEN, CLOSED, CLOSING, MOVING, MOVED, ARRIVING = range(1, 8)
DONE, REFUSED_FOR_GOOD, IN_FLIGHT, SETTLED, VOIDED, EXPIRED, CANCELLED, REVERSED, PREPARED = range(1, 10)
FEED_TRANSFER, FEED_EXPIRED, FEED_CANCELLED, FEED_ACCOUNT = 1, 2, 3, 4
RESULT_REPEATED = 1

REFUSALS = {
    1: "busy", 2: "deadline_passed", 3: "hello_expected", 4: "version_unsupported", 5: "login_required",
    6: "login_failed", 7: "not_permitted", 8: "message_type_unknown", 9: "body_len_invalid", 10: "field_invalid",
    11: "frame_invalid", 12: "frame_stalled", 13: "reply_stalled", 14: "shutting_down", 15: "disk_full",
    16: "login_throttled", 17: "in_flight_limit", 18: "session_ended", 19: "position_out_of_range",
    20: "capacity_reached", 21: "registry_unreachable", 22: "account_moving",
    23: "former_branch_unreachable", 24: "stamp_ahead", 25: "stamp_not_reached",
    50: "id_must_not_be_zero", 51: "id_must_not_be_max", 52: "flag_reserved", 53: "kind_invalid",
    54: "flags_conflict", 55: "debit_account_must_not_be_zero", 56: "debit_account_must_not_be_max",
    57: "credit_account_must_not_be_zero", 58: "credit_account_must_not_be_max", 59: "accounts_must_differ",
    60: "reference_must_be_zero", 61: "reference_must_not_be_zero", 62: "reference_must_not_be_max",
    63: "reference_must_differ", 64: "timeout_reserved_for_hold", 65: "amount_must_not_be_zero",
    66: "currency_invalid", 67: "code_must_not_be_zero", 68: "wrong_branch", 69: "account_id_reserved",
    70: "account_kind_invalid", 71: "chain_open", 72: "count_invalid", 73: "cash_side_must_be_zero",
    74: "imported_event_expected", 75: "imported_event_not_expected", 76: "imported_event_timestamp_out_of_range",
    77: "imported_event_timeout_must_be_zero",
    100: "exists_with_different_flags", 101: "exists_with_different_kind", 102: "exists_with_different_reference",
    103: "exists_with_different_timeout", 104: "exists_with_different_debit_account",
    105: "exists_with_different_credit_account", 106: "exists_with_different_amount",
    107: "exists_with_different_user_data_128", 108: "exists_with_different_user_data_64",
    109: "exists_with_different_user_data_32", 110: "exists_with_different_currency",
    111: "exists_with_different_code", 112: "exists_with_different_owner", 113: "exists_with_different_limits",
    114: "id_cancelled", 115: "id_already_used",
    190: "branch_unknown", 191: "account_moved", 192: "id_used_elsewhere", 193: "moved_account_singles_only",
    194: "hold_elsewhere",
    200: "chain_broken", 201: "reference_not_found", 202: "reference_kind_mismatch", 203: "hold_already_settled",
    204: "hold_already_voided", 205: "hold_expired", 206: "already_reversed", 207: "debit_account_not_found",
    208: "credit_account_not_found", 209: "not_owner", 210: "accounts_currency_mismatch",
    211: "transfer_currency_mismatch", 212: "reference_has_different_debit_account",
    213: "reference_has_different_credit_account", 214: "reference_has_different_currency",
    215: "hold_has_different_code", 216: "amount_exceeds_hold", 217: "reference_has_different_amount",
    218: "debit_account_closed", 219: "credit_account_closed", 220: "debit_account_frozen",
    221: "credit_account_frozen", 222: "overflows_debits_held", 223: "overflows_credits_held",
    224: "overflows_debits_posted", 225: "overflows_credits_posted", 226: "overflows_debits",
    227: "overflows_credits", 228: "overflows_timeout", 229: "insufficient_funds", 230: "exceeds_debits",
    231: "day_limit_exceeded", 232: "debit_account_not_empty", 233: "credit_account_not_empty",
    234: "imported_event_timestamp_must_not_advance",
    235: "imported_event_timestamp_must_postdate_debit_account",
    236: "imported_event_timestamp_must_postdate_credit_account",
    250: "transfer_aborted", 251: "branch_timed_out", 252: "transfer_resolved",
    253: "credit_account_moved",
    300: "account_not_found", 301: "account_closed", 302: "account_not_empty", 303: "account_already_frozen",
    304: "account_not_frozen", 305: "transfer_not_found", 306: "account_has_holds", 307: "account_frozen",
    308: "account_moved_too_often", 309: "account_holds_stay",
}


class Refused(Exception):
    """The branch said no. `code` says why; 200..299 has used the transfer's id up, all else has not."""

    def __init__(self, code, text="", retry_after_ms=0, reply=None):
        super().__init__(f"{REFUSALS.get(code, 'unknown refusal')} ({code}) {text}".rstrip())
        self.code, self.text, self.retry_after_ms, self.reply = code, text, retry_after_ms, reply

    @property
    def name(self):
        return REFUSALS.get(self.code, str(self.code))

    @property
    def id_is_used_up(self):
        return 200 <= self.code <= 299


class ConnectionLost(Exception):
    """The connection ended; requests without a reply have an unknown outcome. `refusal` is why, if it was said."""

    def __init__(self, why, refusal=None):
        super().__init__(f"{why}: {refusal}" if refusal else why)
        self.refusal = refusal


class ProtocolError(Exception):
    """The peer does not speak this protocol."""


def new_id():
    """A fresh transfer id: UUIDv7 as a number."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    return (milliseconds << 80) | (7 << 76) | ((random >> 62 & 0xFFF) << 64) | (2 << 62) | (random & (1 << 62) - 1)


def account_id(branch_id, local):
    """The account `local` of a branch."""
    return branch_id << 112 | local


def house_account_id(branch_id, kind, currency):
    """The branch's own account, e.g. its till (`CASH`)."""
    return account_id(branch_id, 1 << 111 | kind << 16 | currency)


def u128(number):
    return number.to_bytes(16, "little")


def read_after(stamp):
    return b"" if stamp is None else stamp.to_bytes(8, "little")


class Wire:
    """Base of the wire structs. `FIELDS` lists (name, kind) in order: an int is the width of a number in bytes, a
    class is a struct inside, and a name of None is reserved."""

    FIELDS = ()

    @classmethod
    def size(cls):
        return sum(kind if isinstance(kind, int) else kind.size() for _, kind in cls.FIELDS)

    def pack(self):
        parts = []
        for name, kind in self.FIELDS:
            if name is None:
                parts.append(bytes(kind))
            elif isinstance(kind, int):
                parts.append(getattr(self, name).to_bytes(kind, "little"))
            else:
                parts.append(getattr(self, name).pack())
        return b"".join(parts)

    @classmethod
    def unpack(cls, data, offset=0):
        values = {}
        for name, kind in cls.FIELDS:
            width = kind if isinstance(kind, int) else kind.size()
            if offset + width > len(data):
                raise ProtocolError(f"{cls.__name__} cut short")
            if name is not None:
                piece = data[offset : offset + width]
                values[name] = int.from_bytes(piece, "little") if isinstance(kind, int) else kind.unpack(piece)
            offset += width
        return cls(**values)

    @classmethod
    def unpack_all(cls, data):
        """Several, one behind the other."""
        if len(data) % cls.size():
            raise ProtocolError(f"{len(data)} bytes are no whole number of {cls.__name__}")
        return [cls.unpack(data, offset) for offset in range(0, len(data), cls.size())]

    @classmethod
    def unpack_only(cls, data):
        if len(data) != cls.size():
            raise ProtocolError(f"{cls.__name__} has {cls.size()} bytes, not {len(data)}")
        return cls.unpack(data)


@dataclass
class HelloReply(Wire):
    version: int
    branch_id: int
    frame_len_bytes_max: int
    batch_len_max: int
    in_flight_max: int
    server_time: int
    feed_first: int
    routes_version: int
    FIELDS = (("version", 1), (None, 1), ("branch_id", 2), ("frame_len_bytes_max", 4), ("batch_len_max", 4),
              ("in_flight_max", 4), ("server_time", 8), ("feed_first", 8), ("routes_version", 8))


@dataclass
class LoginReplyPrefix(Wire):
    role: int
    token_len_bytes: int
    customer_id: int
    expires_at: int
    FIELDS = (("role", 1), (None, 5), ("token_len_bytes", 2), ("customer_id", 8), ("expires_at", 8))


@dataclass
class RefusedPrefix(Wire):
    refusal: int
    text_len_bytes: int
    retry_after_ms: int
    FIELDS = (("refusal", 2), ("text_len_bytes", 2), ("retry_after_ms", 4))


@dataclass
class Status(Wire):
    branch_id: int
    accepting: int
    accounts: int
    open_holds: int
    durable: int
    checkpoint: int
    transfers_posted: int
    transfers_refused: int
    server_time: int
    started_at: int
    sessions: int
    FIELDS = (("branch_id", 2), ("accepting", 1), (None, 5), ("accounts", 8), ("open_holds", 8), ("durable", 8),
              ("checkpoint", 8), ("transfers_posted", 8), ("transfers_refused", 8), ("server_time", 8),
              ("started_at", 8), ("sessions", 4), (None, 4), (None, 16))


@dataclass
class AccountOpen(Wire):
    id: int
    currency: int
    user_data_128: int = 0
    owner: int = 0
    user_data_64: int = 0
    overdraft: int = 0
    day_limit: int = UNLIMITED
    user_data_32: int = 0
    code: int = 1
    flags: int = DEBITS_LIMITED
    kind: int = CUSTOMER
    FIELDS = (("id", 16), ("user_data_128", 16), ("owner", 8), ("user_data_64", 8), ("overdraft", 8),
              ("day_limit", 8), ("user_data_32", 4), ("currency", 2), ("code", 2), ("flags", 2), ("kind", 1), (None, 5))


@dataclass
class LimitsSet(Wire):
    id: int
    overdraft: int
    day_limit: int = UNLIMITED
    FIELDS = (("id", 16), ("overdraft", 8), ("day_limit", 8))


@dataclass
class Sums(Wire):
    debits_held: int
    debits_posted: int
    credits_held: int
    credits_posted: int
    FIELDS = (("debits_held", 8), ("debits_posted", 8), ("credits_held", 8), ("credits_posted", 8))

    @property
    def balance(self):
        return self.credits_posted - self.debits_posted


@dataclass
class Balance(Wire):
    id: int
    sums: Sums
    available: int
    lsn: int
    timestamp: int
    overdraft: int
    currency: int
    status: int
    FIELDS = (("id", 16), ("sums", Sums), ("available", 8), ("lsn", 8), ("timestamp", 8), ("overdraft", 8),
              ("currency", 2), ("status", 1), (None, 5))


@dataclass
class Account(Wire):
    open: AccountOpen
    sums: Sums
    day_spent: int
    opened_at: int
    lsn: int
    timestamp: int
    day: int
    status: int
    FIELDS = (("open", AccountOpen), ("sums", Sums), ("day_spent", 8), ("opened_at", 8), ("lsn", 8),
              ("timestamp", 8), ("day", 4), ("status", 1), (None, 11))


@dataclass
class Transfer(Wire):
    id: int
    kind: int = MOVE
    debit_account_id: int = 0
    credit_account_id: int = 0
    reference: int = 0
    user_data_128: int = 0
    amount: int = 0
    user_data_64: int = 0
    user_data_32: int = 0
    timeout_s: int = 0
    currency: int = 0
    code: int = 0
    flags: int = 0
    FIELDS = (("id", 16), ("debit_account_id", 16), ("credit_account_id", 16), ("reference", 16),
              ("user_data_128", 16), ("amount", 8), ("user_data_64", 8), ("user_data_32", 4), ("timeout_s", 4),
              ("currency", 2), ("code", 2), ("flags", 2), ("kind", 1), (None, 1))


@dataclass
class TransferReply(Wire):
    timestamp: int
    lsn: int
    amount: int
    refusal: int
    flags: int
    FIELDS = (("timestamp", 8), ("lsn", 8), ("amount", 8), ("refusal", 2), ("flags", 2), (None, 4))
    balances = None

    @property
    def repeated(self):
        return bool(self.flags & RESULT_REPEATED)


@dataclass
class ItemResult(Wire):
    timestamp: int
    refusal: int
    flags: int
    FIELDS = (("timestamp", 8), ("refusal", 2), ("flags", 2), (None, 4))

    @property
    def repeated(self):
        return bool(self.flags & RESULT_REPEATED)


@dataclass
class TransferFound(Wire):
    transfer: Transfer
    reply: TransferReply
    debit: Sums
    credit: Sums
    state: int
    FIELDS = (("transfer", Transfer), ("reply", TransferReply), ("debit", Sums), ("credit", Sums), ("state", 1),
              (None, 7))


@dataclass
class FeedRead(Wire):
    position: int
    count_max: int = 0
    wait_ms: int = 0
    FIELDS = (("position", 8), ("count_max", 4), ("wait_ms", 4))


@dataclass
class RoutesPrefix(Wire):
    version: int
    count: int
    FIELDS = (("version", 8), ("count", 2), (None, 6))
    routes = ()


@dataclass
class RoutePrefix(Wire):
    branch_id: int
    endpoint_len_bytes: int
    status: int
    FIELDS = (("branch_id", 2), ("endpoint_len_bytes", 2), ("status", 1), (None, 3))
    endpoint = ""


@dataclass
class FeedPagePrefix(Wire):
    next: int
    durable: int
    count: int
    FIELDS = (("next", 8), ("durable", 8), ("count", 4), (None, 4))
    entries = ()


@dataclass
class FeedEntry(Wire):
    lsn: int
    kind: int
    account_change: int
    transfer: Transfer
    reply: TransferReply
    debit: Sums
    credit: Sums
    FIELDS = (("lsn", 8), ("kind", 1), ("account_change", 1), (None, 6), ("transfer", Transfer),
              ("reply", TransferReply), ("debit", Sums), ("credit", Sums))


def encode_frame(message_type, request_id, body=b"", trace_id=0, deadline_ms=0):
    """A whole frame."""
    head = HEADER.pack(HEADER.size + len(body), message_type, PROTOCOL_VERSION, 0, request_id, u128(trace_id),
                       deadline_ms, 0)
    return head + body


def hello_body(version_min=PROTOCOL_VERSION, version_max=PROTOCOL_VERSION):
    return struct.pack("<8sBB6x", b"TALLYSTK", version_min, version_max)


def login_body(secret, user=None):
    """By password where a user is given, else by token."""
    user_bytes = (user or "").encode()
    secret_bytes = secret if isinstance(secret, bytes) else secret.encode()
    return struct.pack("<BBHHH", 1 if user else 2, 0, len(user_bytes), len(secret_bytes), 0) + user_bytes + secret_bytes


def decode_routes(body):
    """The branches of the bank: a prefix, then each with the text of its endpoint behind it."""
    reply = RoutesPrefix.unpack(body)
    at = RoutesPrefix.size()
    routes = []
    for _ in range(reply.count):
        route = RoutePrefix.unpack(body[at:])
        at += RoutePrefix.size()
        route.endpoint = body[at : at + route.endpoint_len_bytes].decode()
        at += route.endpoint_len_bytes
        routes.append(route)
    if at != len(body):
        raise ProtocolError("the routes have another length")
    reply.routes = routes
    return reply


def decode_reply(message_type, body):
    """The reply that a frame carries; raises `Refused` for a refusal of the whole request."""
    if message_type == REFUSED:
        prefix = RefusedPrefix.unpack(body)
        text = body[RefusedPrefix.size() :]
        if len(text) != prefix.text_len_bytes:
            raise ProtocolError("the text of a refusal has another length")
        raise Refused(prefix.refusal, text.decode(), prefix.retry_after_ms)
    request_type = message_type & ~REPLY_BIT
    if not message_type & REPLY_BIT:
        raise ProtocolError(f"{message_type:#06x} is no reply")
    if request_type == HELLO:
        return HelloReply.unpack_only(body)
    if request_type == LOGIN:
        reply = LoginReplyPrefix.unpack(body)
        reply.token = body[LoginReplyPrefix.size() :].decode("ascii")
        if len(reply.token) != reply.token_len_bytes:
            raise ProtocolError("the token has another length")
        return reply
    if request_type == PING and not body:
        return None
    if request_type == GET_STATUS:
        return Status.unpack_only(body)
    if request_type == GET_ROUTES:
        return decode_routes(body)
    if request_type in (OPEN_ACCOUNTS, CHAIN, BATCH):
        return ItemResult.unpack_all(body)
    if request_type in (CLOSE_ACCOUNT, FREEZE_ACCOUNT, UNFREEZE_ACCOUNT, SET_LIMITS, CANCEL_ID):
        return ItemResult.unpack_only(body)
    if request_type == TRANSFER:
        reply = TransferReply.unpack(body)
        sums = Sums.unpack_all(body[TransferReply.size() :])
        if len(sums) not in (0, 2):
            raise ProtocolError("a transfer has two accounts")
        reply.balances = tuple(sums) or None
        return reply
    if request_type == GET_BALANCE:
        return Balance.unpack_only(body)
    if request_type == GET_ACCOUNT:
        return Account.unpack_only(body)
    if request_type == GET_TRANSFER:
        return TransferFound.unpack_only(body)
    if request_type == READ_FEED:
        page = FeedPagePrefix.unpack(body)
        page.entries = FeedEntry.unpack_all(body[FeedPagePrefix.size() :])
        if len(page.entries) != page.count:
            raise ProtocolError("the page has another number of entries")
        return page
    raise ProtocolError(f"{message_type:#06x} with {len(body)} bytes is no reply")


def _done(reply):
    if reply.refusal:
        raise Refused(reply.refusal, reply=reply)
    return reply


class Connection:
    """One session. Not for use by several threads at once."""

    def __init__(self, sock, timeout_s=30):
        sock.settimeout(timeout_s)
        self.sock = sock
        self.received = bytearray()
        self.replies = {}
        self.request_id = 0
        self.hello_reply = None
        self.login_reply = None

    @classmethod
    def open(cls, host, port, ca_file, server_name="localhost", timeout_s=30, hello=True):
        """Connects, and does the handshake unless `hello` is false."""
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols([ALPN])
        raw = socket.create_connection((host, port), timeout=timeout_s)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = cls(context.wrap_socket(raw, server_hostname=server_name), timeout_s)
        if hello:
            connection.hello()
        return connection

    @classmethod
    def from_connect_json(cls, path, **options):
        """Connects to the branch that `tally up` described in `connect.json`."""
        with open(path, encoding="utf-8") as file:
            described = json.load(file)
        host, port = described["endpoint"].rsplit(":", 1)
        return cls.open(host.strip("[]"), int(port), described["ca_file"], described["server_name"], **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    # Frames out and in.

    def send_raw(self, data):
        try:
            self.sock.sendall(data)
        except (OSError, ssl.SSLError) as error:
            raise ConnectionLost(f"cannot send: {error}") from error

    def send(self, message_type, body=b"", trace_id=0, deadline_ms=0):
        """Sends a request and returns its id for `wait`."""
        self.request_id += 1
        self.send_raw(encode_frame(message_type, self.request_id, body, trace_id, deadline_ms))
        return self.request_id

    def send_many(self, requests):
        """Sends (message type, body) pairs with one write; returns their ids."""
        ids, frames = [], []
        for message_type, body in requests:
            self.request_id += 1
            ids.append(self.request_id)
            frames.append(encode_frame(message_type, self.request_id, body))
        self.send_raw(b"".join(frames))
        return ids

    def _read_exactly(self, count):
        while len(self.received) < count:
            try:
                piece = self.sock.recv(65536)
            except TimeoutError:
                raise
            except (OSError, ssl.SSLError) as error:
                raise ConnectionLost(f"cannot receive: {error}") from error
            if not piece:
                raise ConnectionLost("the branch closed the connection")
            self.received += piece
        data = bytes(self.received[:count])
        del self.received[:count]
        return data

    def read_frame(self):
        """The next frame: message type, request id, body."""
        head = self._read_exactly(HEADER.size)
        length, message_type, version, _, request_id, _, _, _ = HEADER.unpack(head)
        if version != PROTOCOL_VERSION or not HEADER.size <= length <= FRAME_LEN_BYTES_MAX:
            raise ProtocolError(f"a frame of {length} bytes in version {version}")
        return message_type, request_id, self._read_exactly(length - HEADER.size)

    def wait(self, request_id):
        """The reply to a request that was sent. Others that come first are kept for their own `wait`."""
        while request_id not in self.replies:
            message_type, replied_to, body = self.read_frame()
            if replied_to == 0 and message_type == REFUSED:
                try:
                    decode_reply(message_type, body)
                except Refused as refusal:
                    raise ConnectionLost("the branch ended the session", refusal) from None
            self.replies[replied_to] = (message_type, body)
        return decode_reply(*self.replies.pop(request_id))

    def call(self, message_type, body=b"", **options):
        return self.wait(self.send(message_type, body, **options))

    # One method per message.

    def hello(self, version_min=PROTOCOL_VERSION, version_max=PROTOCOL_VERSION):
        self.hello_reply = self.call(HELLO, hello_body(version_min, version_max))
        return self.hello_reply

    def login(self, user, password):
        self.login_reply = self.call(LOGIN, login_body(password, user))
        return self.login_reply

    def login_with_token(self, token):
        self.login_reply = self.call(LOGIN, login_body(token))
        return self.login_reply

    def ping(self):
        return self.call(PING)

    def status(self):
        return self.call(GET_STATUS)

    def routes(self):
        """The branches of the bank. An empty endpoint is the one that this connection goes to."""
        return self.call(GET_ROUTES)

    def open_accounts(self, accounts):
        """One result per account; does not raise for those that were refused."""
        return self.call(OPEN_ACCOUNTS, b"".join(account.pack() for account in accounts))

    def close_account(self, account):
        return _done(self.call(CLOSE_ACCOUNT, u128(account)))

    def freeze_account(self, account):
        return _done(self.call(FREEZE_ACCOUNT, u128(account)))

    def unfreeze_account(self, account):
        return _done(self.call(UNFREEZE_ACCOUNT, u128(account)))

    def set_limits(self, account, overdraft, day_limit=UNLIMITED):
        return _done(self.call(SET_LIMITS, LimitsSet(account, overdraft, day_limit).pack()))

    def transfer(self, transfer, **options):
        return _done(self.call(TRANSFER, transfer.pack(), **options))

    def chain(self, transfers):
        """One result per transfer; does not raise when the chain was refused."""
        return self.call(CHAIN, b"".join(transfer.pack() for transfer in transfers))

    def batch(self, transfers):
        """One result per transfer; does not raise for those that were refused."""
        return self.call(BATCH, b"".join(transfer.pack() for transfer in transfers))

    def cancel_id(self, transfer_id):
        return _done(self.call(CANCEL_ID, u128(transfer_id)))

    # `after`: the time stamp of a reply of any branch; the answer shows everything up to it.
    def balance(self, account, after=None):
        return self.call(GET_BALANCE, u128(account) + read_after(after))

    def account(self, account, after=None):
        return self.call(GET_ACCOUNT, u128(account) + read_after(after))

    def get_transfer(self, transfer_id, after=None):
        return self.call(GET_TRANSFER, u128(transfer_id) + read_after(after))

    def read_feed(self, position, count_max=0, wait_ms=0):
        return self.call(READ_FEED, FeedRead(position, count_max, wait_ms).pack())
