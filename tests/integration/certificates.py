"""Real certificates for tests, made by openssl: an authority, and a server's key and certificate in one PEM file."""

import subprocess
from pathlib import Path


def _openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def authority(folder: Path, name: str) -> Path:
    """A certificate authority's certificate; its key lies beside."""
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
    _openssl(folder, *words, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    return folder / f"{name}.pem"


def server(folder: Path, signer: str, name: str = "server", address: str = "IP:127.0.0.1") -> Path:
    """A key and a certificate for `address`, signed by the authority called `signer`."""
    words = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-addext", f"subjectAltName={address}"]
    _openssl(folder, *words, "-keyout", f"{name}.key", "-out", f"{name}.csr")
    sign = ["x509", "-req", "-in", f"{name}.csr", "-CA", f"{signer}.pem", "-CAkey", f"{signer}.key", "-days", "2"]
    _openssl(folder, *sign, "-CAcreateserial", "-copy_extensions", "copy", "-out", f"{name}.crt")
    both = folder / f"{name}.both.pem"
    both.write_text((folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text())
    return both
