#!/usr/bin/python
# Copyright: (c) 2026, Qianjiangyuan Deploy contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_resolve
short_description: Find the digests that references have in a registry
description:
  - Asks a registry, once, what tags stand for, so that everything after that names an image by its digest.
  - A reference with a digest is looked up too, so that one which is not in the registry is found out here.
attributes:
  check_mode:
    description: Reads only; runs the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
options:
  registry:
    description:
      - The registry to ask, C(host[:port]).
    type: str
    required: true
  images:
    description:
      - References, C(repository:tag) or C(repository@digest), with or without O(registry) in front.
    type: list
    elements: str
    required: true
  allow_missing:
    description:
      - Whether a reference that the registry does not have goes to RV(missing), instead of failing.
    type: bool
    default: false
extends_documentation_fragment:
  - registry_client
author:
  - Qianjiangyuan Deploy contributors
"""

EXAMPLES = r"""
- name: Resolve what is to be rolled out, once, at the origin
  image_resolve:
    registry: registry.hangzhou.lab:5000
    images:
      - webui:latest
      - base:bookworm
    username: "{{ registry_username }}"
    password: "{{ registry_password }}"
  register: resolved

- name: Show what the tag stands for
  ansible.builtin.debug:
    msg: "webui@{{ resolved.digests['webui:latest'] }}"
"""

RETURN = r"""
digests:
  description: The digest of each reference, by the reference as it was given.
  returned: success
  type: dict
  sample: {"webui:latest": "sha256:6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b"}
missing:
  description: References that the registry does not have, with O(allow_missing=true).
  returned: success
  type: list
  elements: str
"""

from collections.abc import Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.qianjiang.arguments import LOGIN_TOGETHER, REGISTRY_CLIENT, check_numbers, registry_client
from ansible.module_utils.qianjiang.image_reference import ImageReference, ImageReferenceError, check_registry, parse
from ansible.module_utils.qianjiang.registry import RegistryError

ERRORS = (ImageReferenceError, RegistryError)

ARGUMENTS: dict[str, dict[str, Any]] = {
    "registry": {"type": "str", "required": True},
    "images": {"type": "list", "elements": "str", "required": True},
    "allow_missing": {"type": "bool", "default": False},
    **REGISTRY_CLIENT,
}


def wanted(registry: str, images: Sequence[str]) -> dict[str, ImageReference]:
    """The references to ask for, by their text. Another registry would get this one's password: refused."""
    check_registry("registry", registry)
    references = {}
    for index, text in enumerate(images):
        reference = parse(text)
        if reference.registry not in (None, registry):
            raise ImageReferenceError(f"images[{index}]: {text} is in another registry than {registry}")
        if reference.version is None:
            raise ImageReferenceError(f"images[{index}]: expected a tag or a digest, got {text!r}")
        references[text] = reference.at(registry)
    return references


def main() -> None:
    """Resolve references."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, required_together=LOGIN_TOGETHER)
    check_numbers(module)
    registry = module.params["registry"]
    try:
        references = wanted(registry, module.params["images"])
        client = registry_client(module.params, registry)
        found = {text: client.head_manifest(ref.repository, ref.version) for text, ref in references.items()}
    except ERRORS as error:
        module.fail_json(msg=str(error))
    missing = [text for text, digest in found.items() if digest is None]
    if missing and not module.params["allow_missing"]:
        hint = "Push it first (image_push), or look for a misspelt name."
        module.fail_json(msg=f"registry {registry} has no {', no '.join(missing)}. {hint}", missing=missing)
    digests = {text: digest for text, digest in found.items() if digest is not None}
    module.exit_json(changed=False, digests=digests, missing=missing)


if __name__ == "__main__":
    main()
