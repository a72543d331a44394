"""Are the secrets that we present to providers encrypted, referable and never repeated?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from policies import credentials
from policies.credentials import decrypt_credential, encrypt_credential, resolve_credential
from policies.errors import CredentialError
from policies.models import Provider


def test_a_credential_comes_back_and_its_ciphertext_names_the_key() -> None:
    stored = encrypt_credential("sk-secret")
    assert "sk-secret" not in stored
    assert decrypt_credential(stored) == "sk-secret"
    assert credentials.is_encrypted_with_newest_key(stored)


def test_a_new_key_in_front_reads_old_credentials_and_writes_new_ones(settings: Any) -> None:
    old_key, new_key = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.POINTSMAN_CREDENTIAL_KEYS = [old_key]
    stored = encrypt_credential("sk-secret")
    settings.POINTSMAN_CREDENTIAL_KEYS = [new_key, old_key]
    assert decrypt_credential(stored) == "sk-secret"
    assert not credentials.is_encrypted_with_newest_key(stored)
    settings.POINTSMAN_CREDENTIAL_KEYS = [new_key]
    with pytest.raises(CredentialError, match=credentials.key_id(old_key)):
        decrypt_credential(stored)


def test_no_or_broken_encryption_keys_are_reported_without_showing_them(settings: Any) -> None:
    settings.POINTSMAN_CREDENTIAL_KEYS = [""]
    with pytest.raises(CredentialError, match="empty"):
        encrypt_credential("sk")
    settings.POINTSMAN_CREDENTIAL_KEYS = ["hunter2"]
    with pytest.raises(CredentialError) as refusal:
        encrypt_credential("sk")
    assert "hunter2" not in str(refusal.value)


def test_references_to_the_environment_and_to_files_are_read_and_trimmed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOME_PROVIDER_KEY", "sk-from-env\n")
    file = tmp_path / "key"
    file.write_text("sk-from-file\n")
    assert resolve_credential(Provider(credential_reference="env:SOME_PROVIDER_KEY")) == "sk-from-env"
    assert resolve_credential(Provider(credential_reference=f"file:{file}")) == "sk-from-file"
    assert resolve_credential(Provider()) is None
    assert resolve_credential(Provider(credential_ciphertext=encrypt_credential("sk-stored"))) == "sk-stored"


@pytest.mark.parametrize("reference", ["env:NOT_SET_ANYWHERE", "file:/does/not/exist"])
def test_a_reference_that_leads_nowhere_is_named(reference: str) -> None:
    with pytest.raises(CredentialError, match=reference):
        resolve_credential(Provider(credential_reference=reference))


@pytest.mark.parametrize(
    "text", ["sk-pasted-into-the-wrong-field", "env:9", "env:A B", "file:relative", "http://x"]
)
def test_what_is_not_a_reference_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(CredentialError) as refusal:
        credentials.check_reference(text)
    assert text not in str(refusal.value)


@pytest.mark.parametrize("text", ["", "line\nbreak", "nul\0", "schlüssel", "x" * 10_001])
def test_a_credential_that_no_header_can_carry_is_refused(text: str) -> None:
    with pytest.raises(CredentialError):
        encrypt_credential(text)


@pytest.mark.parametrize("name", ["POINTSMAN_SECRET_KEY", "POINTSMAN_CREDENTIAL_KEYS", "DATABASE_URL"])
def test_our_own_secrets_are_no_credential(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "own-secret")
    with pytest.raises(CredentialError, match="this gateway itself"):
        credentials.read_reference(f"env:{name}")


def test_files_of_the_gateway_and_the_system_are_no_credential(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.POINTSMAN_DATA_DIR = tmp_path / "data"
    settings.POINTSMAN_DATA_DIR.mkdir()
    (settings.POINTSMAN_DATA_DIR / "secrets.json").write_text('{"pepper": "own-secret"}')
    (tmp_path / "link").symlink_to(settings.POINTSMAN_DATA_DIR / "secrets.json")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_text("x" * 70_000)
    forbidden = ["data/secrets.json", "link", "data/../data/secrets.json", "pipe", "large"]
    for path in [*(f"{tmp_path}/{name}" for name in forbidden), "/proc/self/environ", "/dev/zero", "/etc"]:
        with pytest.raises(CredentialError) as refusal:
            credentials.read_reference(f"file:{path}")
        assert "own-secret" not in str(refusal.value)
