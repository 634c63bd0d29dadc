"""Settings: flags over environment over msam.toml over defaults, and errors that name the setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from streams.errors import ConfigError, NotReady
from streams.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and nothing of ours in the environment."""
    import os

    for name in list(os.environ):
        if name.startswith("MSAM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults() -> None:
    found = load_settings()
    assert (found.partitions, found.window, found.slack, found.list_size, found.group) == (4, 20, 16, 20, "msam")
    assert found.home == Path.home() / ".msam" and found.models == found.home / "models"
    assert found.state == found.home / "worker" and found.bootstrap is None and found.audio_roots == ()
    assert (found.windows_changelog, found.profiles_changelog) == ("msam-windows-changelog", "msam-profiles-changelog")


def test_flags_over_environment_over_file_over_default(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().window == 20
    (folder / "msam.toml").write_text('window = 7\ngroup = "from-file"\nslack = 3\n')
    assert (load_settings().window, load_settings().group, load_settings().slack) == (7, "from-file", 3)
    monkeypatch.setenv("MSAM_WINDOW", "8")
    monkeypatch.setenv("MSAM_GROUP", "from-environment")
    assert (load_settings().window, load_settings().group, load_settings().slack) == (8, "from-environment", 3)
    found = load_settings(window=9, group=None)
    assert (found.window, found.group, found.slack) == (9, "from-environment", 3), "None is a flag not given"
    assert found.list_size == 20


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("partitions", 0),
        ("partitions", 1025),
        ("window", 0),
        ("window", "many"),
        ("slack", -1),
        ("list_size", 1001),
        ("batch", 0),
        ("group", "a group"),
        ("group", ""),
        ("web_port", 65536),
        ("audio_max_bytes", 0),
    ],
)
def test_a_wrong_value_is_named(name: str, value: Any, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    with pytest.raises(ConfigError, match=name):
        load_settings(**{name: value})
    monkeypatch.setenv(f"MSAM_{name.upper()}", str(value))
    with pytest.raises(ConfigError, match=name):
        load_settings()
    monkeypatch.delenv(f"MSAM_{name.upper()}")
    shown = value if isinstance(value, int) else f'"{value}"'
    (folder / "msam.toml").write_text(f"{name} = {shown}\n")
    with pytest.raises(ConfigError, match=name) as caught:
        load_settings()
    assert "\n" not in str(caught.value)


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"partitions.*window"):
        load_settings(partitions=0, window=0)


def test_a_file_that_is_not_toml_is_named(folder: Path) -> None:
    (folder / "msam.toml").write_text("window = = 7\n")
    with pytest.raises(ConfigError, match=r"msam\.toml"):
        load_settings()


def test_a_list_in_the_environment_that_is_not_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSAM_AUDIO_ROOTS", "/music")
    with pytest.raises(ConfigError, match="audio_roots"):
        load_settings()


def test_folders_of_audio(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("MSAM_AUDIO_ROOTS", '["/music", "/more"]')
    assert load_settings().audio_roots == (Path("/music"), Path("/more"))
    assert load_settings(audio_roots=(Path("/x"),)).audio_roots == (Path("/x"),)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings().window = 3


def test_directories_follow_home_unless_set(folder: Path) -> None:
    found = load_settings(home=folder)
    assert (found.models, found.state) == (folder / "models", folder / "worker")
    found = load_settings(home=folder, model_store=folder / "m", data_dir=folder / "d")
    assert (found.models, found.state) == (folder / "m", folder / "d")


def test_without_a_broker_it_says_how_to_get_one(folder: Path) -> None:
    with pytest.raises(NotReady, match="msam kafka start"):
        load_settings(home=folder).servers()
    assert load_settings(home=folder, bootstrap="h:1,g:2").servers() == "h:1,g:2"


def test_kafka_security_goes_to_librdkafka_by_its_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(bootstrap="h:1").kafka_config() == {"bootstrap.servers": "h:1"}
    secret = folder / "secret"
    secret.write_text("pass word\n")
    monkeypatch.setenv("MSAM_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("MSAM_KAFKA_SASL_MECHANISM", "PLAIN")
    monkeypatch.setenv("MSAM_KAFKA_SASL_USERNAME", "me")
    monkeypatch.setenv("MSAM_KAFKA_SASL_PASSWORD_FILE", str(secret))
    monkeypatch.setenv("MSAM_KAFKA_SSL_CA_LOCATION", "/ca.pem")
    monkeypatch.setenv("MSAM_KAFKA_SSL_CERTIFICATE_LOCATION", "/c.pem")
    monkeypatch.setenv("MSAM_KAFKA_SSL_KEY_LOCATION", "/k.pem")
    assert load_settings(bootstrap="h:1").kafka_config() == {
        "bootstrap.servers": "h:1",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": "pass word",
        "ssl.ca.location": "/ca.pem",
        "ssl.certificate.location": "/c.pem",
        "ssl.key.location": "/k.pem",
    }


def test_a_missing_password_file_is_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="kafka_sasl_password_file"):
        load_settings(bootstrap="h:1", kafka_sasl_password_file=folder / "none").kafka_config()


def test_the_master_key_has_32_bytes(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_settings().master_key() is None
    path = folder / "master"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    assert load_settings(master_key_file=path).master_key() == bytes(range(32)) and not caplog.text
    path.chmod(0o644)
    assert load_settings(master_key_file=path).master_key() == bytes(range(32))
    assert "chmod 600" in caplog.text and "\x01" not in caplog.text
    for wrong in (b"", bytes(31), b"secret" * 10 + b"\n"):
        path.write_bytes(wrong)
        with pytest.raises(ConfigError, match=f"has {len(wrong)} bytes; it must have 32") as caught:
            load_settings(master_key_file=path).master_key()
        assert "secretsecret" not in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="master_key_file cannot be read"):
        load_settings(master_key_file=folder / "none").master_key()


def test_every_setting_says_what_it_is() -> None:
    for name, setting in Settings.model_fields.items():
        assert setting.description and setting.description.endswith("."), name
