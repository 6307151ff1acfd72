# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that the modules of a gateway share (module_utils/qianjiang/haproxy.py)."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation shared by the gateway modules."""

    # SOCKETS
    DOCUMENTATION = r"""
options:
  socket:
    description: HAProxy's runtime socket, of level admin.
    type: path
    default: /run/haproxy/admin.sock
  master_socket:
    description: The socket of HAProxy's master process, which knows the sessions of workers from before a reload.
      Not used when it does not exist.
    type: path
    default: /run/haproxy-master.sock
"""

    # TIMEOUTS
    TIMEOUTS = r"""
options:
  up_timeout:
    description: How many seconds a server that comes into rotation has to pass HAProxy's check.
    type: float
    default: 30
  drain_timeout:
    description: How many seconds the sessions of a server that goes out of rotation have to end; then they are cut.
    type: float
    default: 30
"""

    # LOCK
    LOCK = r"""
options:
  lock:
    description:
      - The datacenter's lock, which is renewed on the way. When it is lost, the module fails.
      - Without it no lock is looked at.
    type: dict
    suboptions:
      path:
        description: The lock's file on this host.
        type: path
        required: true
      holder_id:
        description: Who has it, as it was acquired.
        type: str
        required: true
      ttl:
        description: How many seconds from now it is renewed for.
        type: int
        required: true
"""
