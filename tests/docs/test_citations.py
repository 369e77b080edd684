"""Citations in the source and links in the documentation resolve."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAPERS = ROOT / "docs" / "papers"
FOLDERS = ("jaxnlt", "configs", "tests", "launch")
SUFFIXES = {".py", ".sh", ".sbatch", ".yaml"}

NUMBER = r"\d+(?:\.\d+)*"
CITATION = re.compile(r"papers/(\w+)\.md`{0,2}")
SECTIONS = re.compile(
    rf"\bsections? ({NUMBER}(?:(?:,? and |, | to |-){NUMBER}(?![\w%]))*)"
)
LABEL = re.compile(r"\b[BD]\d+\b")
MARKDOWN = re.compile(r"[\w./-]*\w\.md\b")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def sources() -> list[pathlib.Path]:
    """Every text file that may cite, this file aside."""
    return [
        path
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in SUFFIXES and path != pathlib.Path(__file__)
    ]


def unwrapped(text: str) -> str:
    """Without line ends and comment marks."""
    return re.sub(r"\s*\n\s*(?:#:? ?)?\s*", " ", text)


def citations(text: str) -> list[tuple[str, list[str], str]]:
    """Stem of a paper, numbers and labels that follow, rest of the clause."""
    text = unwrapped(text)
    found = []
    for match in CITATION.finditer(text):
        rest = text[match.end() : match.end() + 120]
        clause = re.split(r"papers/|;|\.(?!\d)|\"\"\"", rest)[0]
        numbers = [
            number
            for listed in SECTIONS.findall(clause)
            for number in re.findall(NUMBER, listed)
        ]
        found.append((match[1], numbers + LABEL.findall(clause), clause))
    return found


def sections(page: pathlib.Path) -> set[str]:
    """Numbers of a page's headings and labels of its defects (B1, D1)."""
    text = page.read_text()
    return set(re.findall(rf"^#+ ({NUMBER})\.? ", text, re.MULTILINE)) | set(
        re.findall(r"^- \*\*([BD]\d+)\*\*", text, re.MULTILINE)
    )


def test_cited_sections_exist():
    known = {page.stem: sections(page) for page in PAPERS.glob("*.md")}
    example = "papers/h2e.md``, sections 2,\n  # 3 and 14.5-14.6; eq. 7 (B1)."
    assert citations(example)[0][1] == ["2", "3", "14.5", "14.6"]
    assert citations("papers/smr.md`` section 2 (B1).")[0][1] == ["2", "B1"]
    wrong = []
    for path in sources():
        for paper, numbers, clause in citations(path.read_text()):
            where = f"{path.relative_to(ROOT)}: papers/{paper}.md{clause}"
            if paper not in known or not set(numbers) <= known[paper]:
                wrong.append(where)
            if re.match(r",? (?:\d|[BD]\d)", clause):
                wrong.append(f"{where} (write: section N)")
    assert not wrong


def test_cited_files_exist():
    wrong = []
    for path in sources():
        text = path.read_text()
        wrong += [
            f"{path.relative_to(ROOT)}: {name}"
            for name in MARKDOWN.findall(text)
            if not (ROOT / name).exists()
            and not (ROOT / "docs" / name).exists()
        ]
        if "\N{SECTION SIGN}" in text:
            wrong.append(f"{path.relative_to(ROOT)}: paragraph sign")
    assert not wrong


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page: pathlib.Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.M)
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in titles
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_resolve(page):
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or anchor and anchor not in anchors(target):
            broken.append(link)
    assert not broken


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180


def test_the_reference_has_every_module():
    listed = {
        name
        for page in (ROOT / "docs" / "api").glob("*.md")
        for name in re.findall(r"automodule:: (\S+)", page.read_text())
    }
    commands = {"jaxnlt.benchmark", "jaxnlt.data.build_nlt"}
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "jaxnlt").rglob("*.py")
        if path.stem not in ("__init__", "__main__", "style")
    }
    # Adding a method is one file; a page may follow.
    free = {name for name in modules if name.startswith("jaxnlt.methods.")}
    assert listed - free == modules - commands - free
    assert listed <= modules
