"""Formulas of the site as MathML, which browsers show without scripts and without a network."""

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.writers.html5 import HTML5Translator


def inline(translator: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line."""
    translator.body.append(markup(node.astext(), "inline"))
    raise nodes.SkipNode


def block(translator: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on a line of its own."""
    translator.body.append(f'<div class="math">{markup(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def markup(formula: str, display: str) -> str:
    """A formula of LaTeX as MathML.

    Raises:
        ValueError: it has a command that the converter does not know, and would leave as it is.
    """
    found = convert(formula, display=display)
    if "\\" in found:
        raise ValueError(f"the formula {formula} has a command that cannot be shown")
    return found
