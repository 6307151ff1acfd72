#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_check
short_description: Say why a host's server certificate must be issued anew
description:
  - Takes the certificate and its key through a TLS handshake, in memory, with a client that trusts only the given
    authority, of an intermediate one the root. What this accepts, the hosts' clients accept.
  - Needs nothing but Python on the host, and reads only.
attributes:
  check_mode:
    description: Reads only; runs the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
options:
  certificate:
    description: Path of the certificate (PEM) on the host.
    type: path
    required: true
  private_key:
    description: Path of its private key (PEM, without a passphrase) on the host.
    type: path
    required: true
  authority:
    description:
      - The authority's certificate, as PEM text; of an intermediate one with those above it. Where some sign
        themselves, the others are not trusted, and the server has to send them along.
    type: str
    required: true
  names:
    description: DNS names and IP addresses that the certificate must be for, and no others.
    type: list
    elements: str
    required: true
  renew_before:
    description: Days before its end at which a certificate counts as due.
    type: int
    default: 30
author:
  - Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Check the server certificate
  certificate_check:
    certificate: /etc/qianjiang/tls/server.crt
    private_key: /etc/qianjiang/tls/server.key
    authority: "{{ platform_ca_certificate }}"
    names: [registry.hangzhou.lab, 10.0.1.10]
  register: server_certificate
"""

RETURN = r"""
reasons:
  description: Why the certificate must be issued anew; empty when it is right.
  returned: always
  type: list
  elements: str
  sample: ["names: missing registry.hangzhou.lab"]
not_after:
  description: End of its validity, in seconds since the epoch; V(0) where no certificate could be read.
  returned: always
  type: int
  sample: 1795478400
"""

import ipaddress
import ssl
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang import certificate as certificates

DAY = 86400


def canonical(name: str) -> str:
    """One spelling for a name or an address (IPv6 has many)."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name.strip().lower()


def certificate_names(certificate: dict[str, Any]) -> set[str]:
    return {canonical(value) for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "IP Address")}


def plan(wanted: list[str], certificate: dict[str, Any], renew_before: int, now: float) -> list[str]:
    """Why a certificate that the handshake accepted must be issued anew all the same."""
    names, found = {canonical(name) for name in wanted}, certificate_names(certificate)
    reasons = []
    if names - found:
        reasons.append(f"names: missing {', '.join(sorted(names - found))}")
    if found - names:
        reasons.append(f"names: no longer wanted {', '.join(sorted(found - names))}")
    left = ssl.cert_time_to_seconds(certificate["notAfter"]) - now
    if left < renew_before * DAY:
        reasons.append(f"ends in {int(left // DAY)} days, renewed {renew_before} days before")
    return reasons


def handshake(certificate: str, private_key: str, authority: str) -> dict[str, Any]:
    """The certificate as a client that trusts only the authority sees it. Raises OSError (ssl.SSLError is one)."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate, private_key, password="")
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.load_verify_locations(cadata=certificates.roots(authority) or authority)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return dict(client.getpeercert() or {})


def explain(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing certificate or private key"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "the private key is another certificate's"
    return f"unreadable: {error}"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "path", "required": True},
            "private_key": {"type": "path", "required": True, "no_log": False},
            "authority": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "renew_before": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        seen = handshake(params["certificate"], params["private_key"], params["authority"])
    except OSError as error:
        module.exit_json(changed=False, reasons=[explain(error)], not_after=0)
    module.exit_json(
        changed=False,
        reasons=plan(params["names"], seen, params["renew_before"], time.time()),
        not_after=ssl.cert_time_to_seconds(seen["notAfter"]),
    )


if __name__ == "__main__":
    main()
