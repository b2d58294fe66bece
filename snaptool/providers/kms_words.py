"""What a key service's error says: its category, what helps, and those of its words that may be shown.

gRPC status codes say little, and a text may carry what the service was sent. Source: docs/formats/kms.md, "Failures".
"""

from __future__ import annotations

import re
from typing import Final

from snaptool.providers.kms_service import Category

_BY_CODE: Final = {
    "DEADLINE_EXCEEDED": Category.TIMEOUT,
    "UNIMPLEMENTED": Category.WRONG_API,
    "FAILED_PRECONDITION": Category.KEY_DISABLED,
    "NOT_FOUND": Category.KEY_UNKNOWN,
    "PERMISSION_DENIED": Category.ACCESS_DENIED,
    "UNAUTHENTICATED": Category.ACCESS_DENIED,
    "INVALID_ARGUMENT": Category.BAD_CIPHERTEXT,
    "DATA_LOSS": Category.BAD_CIPHERTEXT,
    "RESOURCE_EXHAUSTED": Category.THROTTLED,
}

# In this order: a disabled Azure key answers 403 as well, a disabled Google key 400.
_BY_WORDS: Final = (
    (
        Category.KEY_DISABLED,
        "DisabledException|KMSInvalidStateException|is not enabled|KeyDisabled|disabled key|pending deletion",
    ),
    (
        Category.KEY_UNKNOWN,
        "NotFoundException|KeyUnavailableException|does not match expected key id|Error 404|KeyNotFound",
    ),
    (
        Category.ACCESS_DENIED,
        "AccessDenied|Error 403|StatusCode=403|Forbidden|permission denied|ExpiredToken",
    ),
    (
        Category.BAD_CIPHERTEXT,
        "InvalidCiphertext|Error 400.*Decryption failed|message authentication failed|BadParameter",
    ),
    (Category.THROTTLED, "Throttl|LimitExceeded|Error 429|StatusCode=429|TooManyRequests"),
    (Category.TIMEOUT, "deadline exceeded|context deadline"),
)

_TOO_LARGE: Final = re.compile("larger than max|exceeds (?:soft|hard)? ?limit|metadata size exceeds")
"""What grpcio says of an answer that it did not take, under the code that services use for throttling."""


def classify(code: str, text: str) -> Category:
    """Return the category of a failed call by its gRPC code (by name) and, under UNKNOWN, by the words in its text."""
    if code == "UNAVAILABLE":
        if "Permission denied" in text:
            return Category.SOCKET_PERMISSION
        if re.search("HTTP/?[12]", text):
            return Category.NOT_A_PLUGIN
        return Category.UNREACHABLE
    if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE.search(text):
        return Category.BAD_ANSWER
    if code != "UNKNOWN":
        return _BY_CODE.get(code, Category.OTHER)
    for category, words in _BY_WORDS:
        if re.search(words, text, re.IGNORECASE | re.DOTALL):
            return category
    return Category.OTHER


HINTS: Final = {
    Category.TIMEOUT: "give the plugin more time with --kms-timeout, or look at why it is slow",
    Category.KEY_DISABLED: "the data is intact: enable the key again, or cancel its deletion, and start over",
    Category.KEY_UNKNOWN: "start a plugin that has the key of these values (Azure: one with the old --key-version)",
    Category.ACCESS_DENIED: (
        "the plugin's account needs decrypt, and encrypt for writing: AWS kms:Decrypt, kms:Encrypt; "
        "Google cloudkms.cryptoKeyVersions.useToDecrypt, useToEncrypt; Azure keys/decrypt, keys/encrypt"
    ),
    Category.BAD_CIPHERTEXT: (
        "if this hits every value, look at the plugin's key, region and (AWS) encryption context before the data"
    ),
    Category.UNAVAILABLE: "the plugin is there: look at its log, and at the service behind it",
    Category.BAD_ANSWER: "look at whether this is the plugin's socket, and at its log",
    Category.THROTTLED: "the service's quota is used up: lower --kms-rate or --kms-concurrency, or run again later",
}


_WORDS: Final = """
    an and any another are authenticate authenticated authentication authorized available because been bad but by
    cancelled canceled caller can cannot cache call client cloud closed code condition configuration connect
    connection context could credentials current currently data deadline decrypt decryption default denied destroyed
    destroy disabled does doesn't enabled encrypt encrypted encryption error exceeded exist exists expected expired
    failed failure for forbidden found from gone google googleapi grant has have hiccup hsm http id identity in
    information inner innererror internal invalid is it its key keyid keys keyvault kms lacks later limit locked
    login match matches message method missing must no not now object of offline on one operation or out perform
    pending deletion permission permissions permanently policy precondition principal project provider quota rate
    reached read refused region rejected request requests required resource responding response retry role scheduled
    sealed server service services slow slower down state status such temporarily that the there this throttled
    throttling timeout to token too many try again unable unavailable unauthorized unhealthy unknown unsupported use
    used user vault version was when while with would wrong you your please ping ok okay sick
    aad accessdenied accessdeniedexception baseclient badparameter disabledexception expiredtoken
    expiredtokenexception incorrectkeyexception invalidciphertext invalidciphertextexception invalidgrantexception
    invalidkeyusageexception keydisabled keynotfound keyunavailableexception kmsinternalexception
    kmsinvalidstateexception limitexceeded limitexceededexception notfoundexception statuscode throttling
    throttlingexception toomanyrequests dependencytimeoutexception invalidarn invalidarnexception
"""
_KNOWN: Final = frozenset(_WORDS.split())
"""Words that error texts of key services consist of. None has one letter or is two hex digits: codings do."""

_HTTP_STATUS: Final = re.compile(r"(?:Error|StatusCode[=:]|HTTP|status code:?) ?([45][0-9]{2})\b", re.IGNORECASE)
_LONGEST_TEXT: Final = 2000
_LONGEST_SHOWN: Final = 200


def known_words(text: str) -> str:
    """Return those words of a service's text that say what is wrong, and of the rest not one character.

    Whatever a plugin was sent, it may send back in its text: in decimal, in hex with spaces, reversed, quoted. A list
    of the codings never ends, a list of the words does. `…` stands for what is left out; empty: nothing is known.
    """
    text = text[:_LONGEST_TEXT]
    status = _HTTP_STATUS.search(text)
    shown: list[str] = []
    for token in re.split(r"[\s\"'(){}\[\],:;.=#]+", text):
        if token.lower() in _KNOWN:
            shown.append(token.lower() if not token.isascii() else token)
        elif token and (not shown or shown[-1] != "…"):
            shown.append("…")
    words = " ".join(shown)
    if not any(word != "…" for word in shown):
        words = ""
    if len(words) > _LONGEST_SHOWN:
        words = words[:_LONGEST_SHOWN].rpartition(" ")[0] + " …"
    return " ".join(filter(None, [f"HTTP {status[1]}:" if status else "", words]))


def known_version(text: str) -> str:
    """Return a protocol version that looks like one; of any other text, its length."""
    looks_right = re.fullmatch("v[0-9]{1,2}(?:(?:alpha|beta)[0-9]{1,2})?", text)
    return text if looks_right or not text else f"(a text of {len(text)} characters)"
