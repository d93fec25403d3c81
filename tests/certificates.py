"""Certificates for one test run: an authority, and the certificates that it issues."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

OPENSSL = shutil.which("openssl")
MISSING = "the program openssl is not on PATH"


class Certificates:
    """A certificate authority in `directory`; paths are texts, as configurations have them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.ca, self._ca_key = self._files("ca")
        self._run(
            "req", "-x509", *_NEW_KEY, "-keyout", self._ca_key, "-out", self.ca, "-subj", "/CN=test authority",
            "-days", "2",
        )  # fmt: skip

    def issue(self, name: str, *alternatives: str) -> tuple[str, str]:
        """Issue a certificate for `name`, valid for hosts such as `IP:127.0.0.1`; return its path and its key's."""
        certificate, key = self._files(name)
        request = str(self._directory / f"{name}.csr")
        extensions = self._directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={','.join(alternatives)}\n" if alternatives else "")
        self._run("req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        self._run(
            "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._ca_key, "-CAcreateserial", "-days", "2",
            "-extfile", str(extensions), "-out", certificate,
        )  # fmt: skip
        return certificate, key

    def _files(self, name: str) -> tuple[str, str]:
        return str(self._directory / f"{name}.crt"), str(self._directory / f"{name}.key")

    def _run(self, *arguments: str) -> None:
        assert OPENSSL is not None, MISSING
        subprocess.run([OPENSSL, *arguments], check=True, capture_output=True)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
