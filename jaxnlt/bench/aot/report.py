"""What the compiler said, as text."""

import textwrap

from jaxnlt.bench.aot.hlo import COLLECTIVES
from jaxnlt.bench.command import Figures

_WIDTH = 17


def table(result: Figures) -> str:
    """The figures as text.

    Args:
      result: what ``command.measure`` returned.

    Returns:
      Lines without a newline at the end.
    """
    shape = "x".join(map(str, result["image_shape"]))
    lines = [
        f"{result['method']} on {result['benchmark']}: {result['model']}, "
        f"images {shape}, {result['dtype']}; jax {result['jax']}, libtpu "
        f"{result['libtpu']}",
        f"{result['topology']}: {result['chips']} x {result['chip']}, each "
        f"{result['peak_flops'] / 1e12:.0f} TFLOP/s, "
        f"{result['hbm_bytes'] / 1e9:.0f} GB at "
        f"{result['hbm_bytes_per_second'] / 1e9:.0f} GB/s, links of "
        f"{result['link_bytes_per_second'] / 1e9:.0f} GB/s",
        "",
        *_steps(result),
        "",
        *_exchanges(result),
        "",
        *_scaling(result),
        "",
        *_operations(result),
        *textwrap.wrap(result["assumptions"], 100),
    ]
    return "\n".join(lines)


def _steps(result: Figures) -> list[str]:
    """Work, memory and time of one chip and step."""
    works = ("GFLOP", "GB touched", "in HBM", "GB held")
    waits = ("arithmetic", "memory", "network")
    lines = [
        "One chip, one step; times in ms, at best and at worst",
        f"{'':{_WIDTH}}{''.join(f'{text:>11}' for text in (*works, *waits))}"
        f"{'step':>22}{'images/s':>22}",
    ]
    for row in result["rows"]:
        memory = row["memory"]
        held = sum(memory.values()) - 2 * memory["in_place"]
        ms = (row[f"seconds_{name}"] * 1e3 for name in waits)
        lines.append(
            f"{row['what']:{_WIDTH}}{row['flops'] / 1e9:>11.1f}"
            f"{row['bytes'] / 1e9:>11.2f}{row['hbm_bytes'] / 1e9:>11.2f}"
            f"{held / 1e9:>11.2f}"
            + "".join(f"{value:>11.2f}" for value in ms)
            + _between(
                row["seconds_least"] * 1e3, row["seconds_most"] * 1e3, ".2f"
            )
            + _between(
                row["images_per_second_least"],
                row["images_per_second_most"],
                ".0f",
            )
        )
    return lines


def _between(least: float, most: float, form: str) -> str:
    return f"{f'{least:{form}} - {most:{form}}':>22}"


def _exchanges(result: Figures) -> list[str]:
    """Exchanges by kind."""
    lines = [
        "Exchanges of one chip and step: how many, MB sent",
        f"{'':{_WIDTH}}{''.join(f'{kind:>20}' for kind in COLLECTIVES)}",
    ]
    for row in result["rows"]:
        cells = []
        for kind in COLLECTIVES:
            found = row["collectives"].get(kind)
            cells.append(
                f"{found['count']:>11}{found['bytes_sent'] / 1e6:>9.2f}"
                if found
                else f"{'-':>20}"
            )
        lines.append(f"{row['what']:{_WIDTH}}{''.join(cells)}")
    return lines


def _scaling(result: Figures) -> list[str]:
    """Images/s on other numbers of chips."""
    scales = list(result["rows"][0]["scaling"]["chip"])
    heads = "".join(f"{f'{chips} chips':>22}" for chips in scales)
    lines = [
        "Thousands of images/s at worst and at best; where the chips do not "
        "divide the batch,",
        "as many of them work as do",
        f"{'':{_WIDTH}}{'':>6}{heads}",
    ]
    for row in result["rows"]:
        rows = row["images"] / row["chips"]
        batches = {
            "chip": f"{rows:g} images a chip",
            "global": f"{row['images']} images in all",
        }
        lines.append(row["what"])
        for batch, said in batches.items():
            cells = (
                _between(
                    each["images_per_second_least"] / 1e3,
                    each["images_per_second_most"] / 1e3,
                    ".1f",
                )
                for each in row["scaling"][batch].values()
            )
            lines.append(f"  {said:{_WIDTH + 4}}{''.join(cells)}")
    return lines


def _operations(result: Figures) -> list[str]:
    """The operations that touch most bytes."""
    lines = []
    for row in result["rows"]:
        if row["operations"]:
            lines.append(
                f"{row['what']}: MB touched, in HBM, thousands of cycles, "
                "operation, line, origin"
            )
        lines += [
            f"{each['nbytes'] / 1e6:>10.2f}{each['hbm_bytes'] / 1e6:>10.2f}"
            f"{each['cycles'] / 1e3:>8.0f}  {each['name']}  {each['place']}  "
            f"{each['source']}"
            for each in row["operations"]
        ]
        if row["operations"]:
            lines.append("")
    return lines
