"""Settings: flags over `MSAM_*` environment over `msam.toml` over defaults, read once into a frozen object."""

import logging
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from streams.errors import ConfigError, NotReady

if TYPE_CHECKING:
    from streams.prequential import Rule
    from streams.serialization import Registry

log = logging.getLogger(__name__)
TOKEN_LENGTH = 16
MASTER_KEY_BYTES = 32


class Settings(BaseSettings):
    """Everything a process needs to know before it starts; plain keywords go on from here."""

    model_config = SettingsConfigDict(env_prefix="MSAM_", toml_file="msam.toml", frozen=True, extra="ignore")

    home: Path = Field(Path.home() / ".msam", description="Where the local broker, models and worker state live.")
    bootstrap: str | None = Field(None, description="Kafka bootstrap servers; default: the running local broker.")
    group: str = Field("msam", pattern=r"^[A-Za-z0-9._-]{1,200}$", description="Consumer group and Faust app id.")
    partitions: int = Field(4, ge=1, le=1024, description="Partitions of the topics keyed by user or track.")
    window: int = Field(20, ge=1, le=1000, description="k: plays in a user's window.")
    dim: int = Field(64, ge=4, le=1024, description="Size d of trained models, the published one aside.")
    history: int = Field(1000, ge=1, le=10_000, description="Plays of a user that are counted, beside the window.")
    slack: int = Field(16, ge=0, le=1000, description="Plays kept beyond k, so that an older window can be cut out.")
    list_size: int = Field(20, ge=1, le=1000, description="N: length of a published list.")
    batch: int = Field(32, ge=1, le=1024, description="Most plays in one micro-batch.")
    linger: float = Field(0.03, ge=0, le=1, description="Seconds at most that plays of one fetch wait for each other.")
    precision: Literal["auto", "f32"] = Field(
        "auto", description="auto: the LSTMs in bfloat16 where the CPU multiplies it; f32: never."
    )
    data_dir: Path | None = Field(None, description="State of one worker (RocksDB); default: home/worker.")
    model_store: Path | None = Field(None, description="Directory of model artifacts; default: home/models.")
    master_key_file: Path | None = Field(None, description="File with the 32 bytes under which listeners' keys lie.")
    registry_url: str | None = Field(None, description="Schema Registry (Confluent API), for framed messages.")
    audio_roots: tuple[Path, ...] = Field((), description="Folders from which audio may be read by reference.")
    audio_max_bytes: int = Field(64 * 2**20, ge=1, description="Largest audio file that is read, in bytes.")
    text_encoder: str | None = Field(None, description="BERT model by path or name; default: the MiniLM that ships.")
    rollback_margin: float = Field(
        0.02, ge=0, le=1, description="How far a live version's HR@20 may fall behind the one before."
    )
    rollback_plays: int = Field(
        1000, ge=0, description="Plays after which a live version is first judged by them; 0: never rolled back."
    )
    rollback_alpha: float = Field(
        0.001, gt=0, lt=0.5, description="Chance to roll back one that is behind by just the margin."
    )
    web_host: str = Field("127.0.0.1", description="Address of health, metrics and lists.")
    web_token_file: Path | None = Field(None, description="File with the bearer token that HTTP callers must show.")
    web_port: int = Field(6066, ge=0, le=65535, description="Port of health, metrics and lists; 0 picks a free one.")

    kafka_security_protocol: str | None = Field(None, description="librdkafka's security.protocol.")
    kafka_sasl_mechanism: str | None = Field(None, description="librdkafka's sasl.mechanism.")
    kafka_sasl_username: str | None = Field(None, description="librdkafka's sasl.username.")
    kafka_sasl_password_file: Path | None = Field(None, description="File whose content is sasl.password.")
    kafka_ssl_ca_location: Path | None = Field(None, description="librdkafka's ssl.ca.location.")
    kafka_ssl_certificate_location: Path | None = Field(None, description="librdkafka's ssl.certificate.location.")
    kafka_ssl_key_location: Path | None = Field(None, description="librdkafka's ssl.key.location.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def models(self) -> Path:
        """The model store in force."""
        return self.model_store or self.home / "models"

    @property
    def state(self) -> Path:
        """The worker's data directory in force."""
        return self.data_dir or self.home / "worker"

    @property
    def windows_changelog(self) -> str:
        """The changelog topic of this group's windows table."""
        return f"{self.group}-windows-changelog"

    @property
    def profiles_changelog(self) -> str:
        """The changelog topic of this group's profiles table."""
        return f"{self.group}-profiles-changelog"

    def servers(self) -> str:
        """Bootstrap servers: as set, else the running local broker's; NotReady where there is neither."""
        if self.bootstrap:
            return self.bootstrap
        from streams.local_kafka import running_bootstrap

        found = running_bootstrap(self.home)
        if found is None:
            raise NotReady("no Kafka broker: start one with `msam kafka start`, or pass --bootstrap host:port")
        return found

    def half(self) -> bool:
        """Whether the recurrences run in bfloat16 on this machine."""
        if self.precision == "f32":
            return False
        from msam.network.precision import native_bfloat16

        return native_bfloat16()

    def registry(self) -> "Registry | None":
        """Where framed messages' schemas are looked up, if anywhere."""
        if self.registry_url is None:
            return None
        from streams.registry import HttpRegistry

        return HttpRegistry(self.registry_url)

    def rollback(self) -> "Rule | None":
        """When a live version is rolled back by itself; None for never."""
        from streams.prequential import Rule

        return Rule(self.rollback_margin, self.rollback_plays, self.rollback_alpha) if self.rollback_plays else None

    def web_token(self) -> str | None:
        """The bearer token of the endpoint, from its file; ConfigError for one that could be guessed."""
        if self.web_token_file is None:
            return None
        try:
            token = self.web_token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"web_token_file cannot be read: {error}") from error
        if len(token) < TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigError(
                f"web_token_file {self.web_token_file}: a token has {TOKEN_LENGTH} or more printable ASCII characters "
                "and no space; `openssl rand -hex 32` makes one"
            )
        return token

    def master_key(self) -> bytes | None:
        """The key that wraps the keys of listeners, from its file; ConfigError for one of another length."""
        path = self.master_key_file
        if path is None:
            return None
        try:
            key, open_to_all = path.read_bytes(), path.stat().st_mode & 0o004
        except OSError as error:
            raise ConfigError(f"master_key_file cannot be read: {error}") from error
        if len(key) != MASTER_KEY_BYTES:
            raise ConfigError(
                f"master_key_file {path} has {len(key)} bytes; it must have {MASTER_KEY_BYTES}, which "
                f"`openssl rand -out FILE {MASTER_KEY_BYTES}` makes (bytes, not text)"
            )
        if open_to_all:
            log.warning("master_key_file %s can be read by every user of this machine: chmod 600", path)
        return key

    def kafka_password(self) -> str | None:
        """The SASL password, from its file."""
        if self.kafka_sasl_password_file is None:
            return None
        try:
            return self.kafka_sasl_password_file.read_text().strip()
        except OSError as error:
            raise ConfigError(f"kafka_sasl_password_file cannot be read: {error}") from error

    def kafka_config(self) -> dict[str, str]:
        """What every librdkafka client of ours starts from."""
        config = {"bootstrap.servers": self.servers()}
        for name in ("security_protocol", "sasl_mechanism", "sasl_username"):
            value = getattr(self, f"kafka_{name}")
            if value is not None:
                config[name.replace("_", ".")] = value
        for name in ("ssl_ca_location", "ssl_certificate_location", "ssl_key_location"):
            path = getattr(self, f"kafka_{name}")
            if path is not None:
                config[name.replace("_", ".")] = str(path)
        if self.kafka_sasl_password_file is not None:
            config["sasl.password"] = self.kafka_password() or ""
        return config


def load_settings(**flags: Any) -> Settings:
    """Settings with the flags that were given (None = not given) on top; ConfigError names each wrong one."""
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"settings: {wrong} (flag, MSAM_ environment variable or msam.toml)") from error
    except SettingsError as error:
        raise ConfigError(f"settings: {error}; lists are written as JSON, such as '[\"/music\"]'") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"msam.toml: {error}") from error
