"""Tables of LaTeX: what stands in them, and where LaTeX is, that it prints them."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from layerbench.reporters import latex_table
from layerbench.reporters.latex_table import MOST_ROWS, escaped, table

NAMES = (
    r"a_b & 50 % #1 $x$ \back {br}",
    "*star",
    "[opt]",
    "a--b---c",
    '"q" ?`!`',
    "x|y^2",
    "µs é × → …",
)
PACKAGES = ("booktabs", "graphicx", "longtable")


def of_rows(count: int, name: str = "row", columns: int = 2) -> str:
    cells = [[escaped(name), *[str(row)] * (columns - 1)] for row in range(count)]
    header = ["Model", *["AMD EPYC, 2 threads: median ms"] * (columns - 1)]
    return table(header, cells, "l" + "r" * (columns - 1), f"{name} has {count}", f"tab:{count}")


def test_no_name_is_a_command_or_another_sign():
    assert escaped("*[a]") == "{*}{[}a]"
    assert escaped("a--b---c") == "a-{}-b-{}-{}-c"
    assert escaped("?`") == "?{}`"
    assert escaped('~"') == r"$\sim${\char34}"


def test_a_wide_table_is_made_narrower_and_a_long_one_goes_on():
    made = of_rows(MOST_ROWS)
    assert made.startswith("% needs \\usepackage{booktabs,graphicx}\n\\begin{table}\n")
    assert r"\resizebox{\ifdim\width>\linewidth\linewidth" in made
    assert r"Model & \shortstack[r]{AMD EPYC, 2 threads\\median ms} \\" in made
    longer = of_rows(MOST_ROWS + 1)
    assert longer.startswith(
        "% needs \\usepackage{booktabs,longtable} and pages of one column\n\\begingroup\n"
    )
    assert longer.count(r"Model & \shortstack") == 2
    assert r"\begin{table}" not in longer


def test_letters_that_stop_pdflatex_are_told():
    word = "% has letters that stop pdfLaTeX: take LuaLaTeX"
    assert of_rows(1, "模型").startswith(word)
    assert of_rows(1, "Ψ").startswith(word)
    assert word not in of_rows(1, "µs é × → …")


def test_latex_prints_every_name_within_the_page(tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex: apt-get install texlive-latex-base texlive-latex-recommended")
    tables = [
        table(["Model", "FPS"], [[escaped(name), "1"] for name in NAMES], "lr", "A & B", "tab:n"),
        of_rows(3, columns=16),
        of_rows(3 * MOST_ROWS, "resnet_18"),
    ]
    lines = [
        r"\documentclass{article}",
        rf"\usepackage{{{','.join(PACKAGES)}}}",
        r"\begin{document}",
        *tables,
        r"\end{document}",
    ]
    (tmp_path / "paper.tex").write_text("\n".join(lines), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log
    assert not re.search("Overfull|too large|Missing character", log), log
    if shutil.which("pdftotext"):
        read = ["pdftotext", "-layout", "paper.pdf", "-"]
        text = subprocess.run(read, cwd=tmp_path, capture_output=True, check=True).stdout.decode()
        assert "*star" in text
        assert "a--b---c" in text
        assert (
            text.count("resnet 18") == 3 * MOST_ROWS + 1
        )  # in the caption too; the line is a rule


def test_every_package_is_in_the_documentation():
    from tests.support.paths import ROOT

    told = (ROOT / "docs" / "table.md").read_text(encoding="utf-8")
    needed = {name for name in PACKAGES if name in (latex_table.__doc__ or "")}
    assert needed == set(PACKAGES)
    assert all(name in told for name in PACKAGES)
