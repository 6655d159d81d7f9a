import pytest

from realdex_jax.select.client import KEYS

CANARY = "canary-7f3a9c-key-of-nobody"


@pytest.fixture
def key(monkeypatch):
    """A key that must turn up nowhere; and no other."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GEMINI_API_KEY", CANARY)
    return CANARY
