# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that every module which speaks to a registry has (module_utils/qianjiang/arguments.py)."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation shared by the image modules."""

    DOCUMENTATION = r"""
options:
  username:
    description:
      - User for the registry's password authentication. The login lasts for this call and is stored nowhere.
    type: str
  password:
    description:
      - Password of O(username). It never appears in a log, a command line or a file that others can read.
    type: str
  ca_path:
    description:
      - File with the certificate of the CA to trust for the registry, in PEM.
      - Without it, the file that the engine uses, C(/etc/docker/certs.d/<registry>/ca.crt), and where there is none,
        the system's CAs. A registry is always spoken to over TLS.
    type: path
  timeout:
    description:
      - Seconds to wait for each answer of a registry.
    type: int
    default: 30
requirements:
  - python3-docker (Docker SDK for Python 5.0.3 or later; it brings requests)
"""
