"""What may not be learned by heart: e-mail addresses and passwords are replaced, files with keys are dropped."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import Any

from riallm.core.errors import UsageError
from riallm.data.corpus.lex import STRINGS

_MAIL = re.compile(r"[A-Za-z0-9][\w.+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}")
_SPEECH = re.compile(rf"({STRINGS})|(#[^\n]*)", re.DOTALL)
_PASSWORD = re.compile(r"(://[^:/?#\[\]@\s\"'{}%]+:)([^:/?#\[\]@\s\"'{}%]+)(@)")
_EXAMPLE = re.compile(r"@(?:[\w-]+\.)*example\.(?:com|org|net)$")
STAND_IN = "name@example.org"

# Detectors of detect-secrets whose form is unmistakable. Those that go by entropy or by a variable's name call every
# second test a secret; URLs with a password are mended here instead of dropped.
_DETECTORS = (
    "aws.AWSKeyDetector", "azure_storage_key.AzureStorageKeyDetector", "discord.DiscordBotTokenDetector",
    "github_token.GitHubTokenDetector", "gitlab_token.GitLabTokenDetector", "jwt.JwtTokenDetector",
    "mailchimp.MailchimpDetector", "npm.NpmDetector", "openai.OpenAIDetector", "private_key.PrivateKeyDetector",
    "pypi_token.PypiTokenDetector", "sendgrid.SendGridDetector", "slack.SlackDetector",
    "square_oauth.SquareOAuthDetector", "stripe.StripeDetector", "telegram_token.TelegramBotTokenDetector",
)  # fmt: skip
# A detector's patterns are tried only where one of these words stands: most files hold none.
_HINT = re.compile(
    r"PRIVATE KEY|AKIA|ASIA|A3T|ABIA|ACCA|aws|AccountKey|gh[pousr]_|gl\w+-|GR1348941|eyJ|-us\d|_authToken|T3BlbkFJ"
    r"|pypi-|SG\.|xox|hooks\.slack|sq0csp|k_live_|\d{8,10}:[\w-]{35}|[MNO][\w-]{23,25}\.[\w-]{6}\.|PuTTY",
    re.IGNORECASE,
)


@cache
def detectors() -> tuple[Any, ...]:
    """The detectors; UsageError with the line that installs them when the package is missing."""
    try:
        made = []
        for name in _DETECTORS:
            module, kind = name.split(".")
            made.append(getattr(import_module(f"detect_secrets.plugins.{module}"), kind)())
    except ImportError as error:
        raise UsageError("detect-secrets is missing; install it: pip install 'riallm[data]'.") from error
    return tuple(made)


def holds_secret(text: str) -> bool:
    """Whether a key or a token of a known form stands in the text."""
    found = detectors()
    lines = {text[text.rfind("\n", 0, at.start()) + 1 : _line_end(text, at.end())] for at in _HINT.finditer(text)}
    return any(True for line in lines for detector in found for _ in detector.analyze_string(line))


def without_addresses(text: str) -> str:
    """The text with every e-mail address in a string or comment, and every password in a URL, replaced.

    Elsewhere `a@b.conj` is a matrix product.
    """
    if "://" in text and "@" in text:
        text = _PASSWORD.sub(r"\1password\3", text)
    if not _MAIL.search(text):
        return text
    return _SPEECH.sub(lambda found: _MAIL.sub(_replaced, found.group()), text)


def _replaced(found: re.Match[str]) -> str:
    return found.group() if _EXAMPLE.search(found.group()) else STAND_IN


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end
