"""Makes the generated parts of the guides anew: `python -m tests.docs`."""

from __future__ import annotations

from tests.docs import generated

for path, text in generated.files():
    path.write_text(text, encoding="utf-8")
