"""Changes to pages and docstrings for the documentation's site."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from documentation import DOCS, program

import fulgurite


def resolved(page: str, text: str) -> str:
    """The text as it is read for a page of the site."""
    source = [text]
    program("site_pages").resolve_links(SimpleNamespace(srcdir=str(DOCS)), page, source)
    return source[0]


PGD = "probes.attacks.gradient"
LINKS = {
    "a module": ("attacks", "[`PGD`](../probes/attacks/gradient.py)", f"{{py:mod}}`PGD <fulgurite.{PGD}>`"),
    "a room": ("architecture", "[data](../data)", "[data](generated/rooms/data.md)"),
    "a heading": ("units", "[here](attacks.md#training)", "[here](attacks.md#training)"),
    "a text of the root": ("own_probe", "[how](../CONTRIBUTING.md)", "[how](generated/contributing.md)"),
    "a notebook": (
        "index",
        "[see](notebooks/watch_a_network_learn.py)",
        "[see](generated/notebooks/watch_a_network_learn.md)",
    ),
    "of the root": (
        "generated/readme",
        "[a](docs/attacks.md), ![b](docs/pictures/strip.png)",
        "[a](../attacks.md), ![b](../pictures/strip.png)",
    ),
    "of a notebook": (
        "generated/notebooks/watch_a_network_learn",
        "![a](../pictures/strip.png), [b](../attacks.md)",
        "![a](../../pictures/strip.png), [b](../../attacks.md)",
    ),
    "a class": ("units", "see `Metrics`", "see {py:obj}`Metrics <fulgurite.Metrics>`"),
    "a function": ("units", "`fg.pgd`, `pgd`", "{py:obj}`fg.pgd <fulgurite.pgd>`, `pgd`"),
    "in a table": ("units", "| `pgd` | `pgd` |", "| {py:obj}`pgd <fulgurite.pgd>` | `pgd` |"),
    "in a link": ("units", "[`L2`](attacks.md)", "[`L2`](attacks.md)"),
    "nowhere": ("units", "[gone](gone.md)", "[gone](gone.md)"),
    "in a program": ("units", "```\n[code](../data)\n```", "```\n[code](../data)\n```"),
    "a public name": (
        "python",
        f"| `pgd` | Steps. | `{PGD}` |",
        f"| {{py:obj}}`pgd <fulgurite.pgd>` | Steps. | {{py:mod}}`{PGD} <fulgurite.{PGD}>` |",
    ),
}


@pytest.mark.parametrize(("page", "link", "wanted"), LINKS.values(), ids=LINKS.keys())
def test_links_to_files_lead_to_pages_of_the_site(page: str, link: str, wanted: str):
    assert resolved(page, link) == wanted


def test_every_public_name_has_its_directive():
    pages = program("site_pages").public_pages((DOCS / "python.md").read_text())
    directives = "\n".join(pages.values()).splitlines()
    for name in [name for names in fulgurite.PUBLIC.values() for name in names]:
        kind = "class" if isinstance(getattr(fulgurite, name), type) else "function"
        assert directives.count(f".. auto{kind}:: fulgurite::{name}") == 1
    # what functions return is described too, once
    assert directives.count(".. autoclass:: fulgurite.probes.robustness.report::Report") == 1


def test_a_docstring_means_what_it_says():
    rest = program("site_docstrings").rest
    lines = [
        "Products of *args, by `grad_cam` and `name_`: see arxiv.org/abs/1610.02391, |x| and x_.",
        "",
        "A program follows:",
        "",
        "    maps = f(*args)",
        "",
        "Args:",
        "    images: in [0, 1].",
    ]
    assert rest(lines) == [
        r"Products of \*args, by :py:obj:`grad_cam <fulgurite.grad_cam>` and `name_`: see "
        r"https://arxiv.org/abs/1610.02391, \|x\| and x\_.",
        "",
        "A program follows::",
        "",
        "    maps = f(*args)",
        "",
        "Args:",
        "    images: in [0, 1].",
    ]


def test_a_notebooks_page_shows_what_its_cells_gave(tmp_path: Path):
    script = tmp_path / "sum.py"
    (tmp_path / "shown").mkdir()
    script.write_text('# %% [markdown]\n"""\n# Sums\n\nTwo numbers.\n"""\n\n# %%\nprint(1 + 2)\n')
    (tmp_path / "shown" / "sum_01.txt").write_text("3\n")
    (tmp_path / "shown" / "sum_01.png").write_bytes(b"")
    page = program("site_pages").notebook_page(script)
    parts = [
        "# Sums",
        "Two numbers.",
        "```python\nprint(1 + 2)\n```",
        "shown/sum_01.png",
        "```text\n3\n```",
    ]
    places = [page.index(part) for part in parts]
    assert places == sorted(places)


def test_a_formula_is_shown_as_it_is_written_or_not_at_all():
    markup = program("site_math").markup
    assert "<msub><mi>x</mi><mn>0</mn></msub>" in markup("x_0", "inline")
    with pytest.raises(ValueError, match="cannot be shown"):
        markup(r"\arg x", "inline")
