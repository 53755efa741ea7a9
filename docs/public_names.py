"""Prints the names of `import fulgurite` with a line for each, for docs/python.md."""

import inspect

import fulgurite

if __name__ == "__main__":
    for module, names in fulgurite.PUBLIC.items():
        for name in names:
            line = (inspect.getdoc(getattr(fulgurite, name)) or "").partition("\n")[0]
            print(f"| `{name}` | {line} | `{module}` |")
