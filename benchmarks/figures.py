"""The figures of docs/results.md that compare methods on picture sets, beside the published ones.

    python benchmarks/figures.py --list
    python benchmarks/figures.py set9-25 --data DATA --out RUNS --seeds 2
    python benchmarks/figures.py set9-25 set9-50 --data DATA --out RUNS --scheduler tcp://HOST:8786 --resource GPU=1

Each has a folder in RUNS with every record and a page (report.html), and may be killed and repeated: what is finished
is not run again. NAME.json in benchmarks/results/ has the means, the figures of each picture, and what was published;
methods that it has from another run, on another machine perhaps, stay in it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dip import arguments, benchmark, comparison, datasets, place_arguments
from dip.benchmark import tables
from dip.console import Console
from dip.storage import plain


@dataclass(frozen=True)
class Figure:
    """One table: a set, a protocol, methods, and what others published for it (dB)."""

    about: str
    set: str
    task: str
    methods: tuple[str, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    published: dict[str, float] = field(default_factory=dict)
    size: int | None = None
    border: int | None = None


DENOISERS = ("paper", "paper+twice", "fast", "fast+twice", "zsn2n", "bm3d", "nlm", "tv", "wavelet")
SET9_25 = {
    "DIP, the paper, averaged": 30.43,
    "DIP, the paper, two runs averaged": 31.00,
    "CBM3D, the paper": 31.42,
    "NLM, the paper": 30.26,
}
SET9_50 = {"DIP, the authors' pictures": 27.69, "CBM3D, the authors' pictures": 27.78}
RULES = ("paper", "paper+windowed-variance", "paper+moving-variance", "paper+discrepancy", "fast", "fast+discrepancy")


def _enlarged(name: str, factor: int, bicubic: float, dip_: float, kernel: str = "Lanczos") -> Figure:
    published = {"bicubic, the paper": bicubic, "DIP, the paper": dip_}
    about = f"{name}, {factor} times, reduced by Pillow's {kernel}, luma"
    return Figure(
        about,
        name,
        "super-resolve",
        ("fast", "paper" if factor == 4 else "paper-x8", "back-projection", "bicubic"),
        {"factor": factor, "kernel": f"Pillow's {kernel} in 8 bits"},
        published,
        border=4,
    )


def _missing(share: float, published: float) -> Figure:
    methods = ("fast", "paper-half", "iterated-wiener", "biharmonic", "interpolation")
    about = f"Set11, {share:.0%} of the pixels missing"
    return Figure(about, "set11", "inpaint", methods, {"missing": share}, {"DIP": published})


def _compressed(quality: int) -> Figure:
    about = f"Set5, the middle 256 x 256, a JPEG of quality {quality}"
    methods = ("fast", "paper", "shifted")
    return Figure(about, "set5", "dejpeg", methods, {"quality": quality}, size=256)


FIGURES = {
    "set9-25": Figure("Set9, sigma 25, clipped", "set9", "denoise", DENOISERS, published=SET9_25),
    "set9-25-unclipped": Figure("Set9, sigma 25, not clipped", "set9", "denoise", DENOISERS, {"clip": False}),
    "set9-50": Figure(
        "Set9, sigma 50, clipped", "set9", "denoise", ("paper-sigma50", *DENOISERS), {"sigma": 50.0}, SET9_50
    ),
    "set9-25-256": Figure("Set9, the middle 256 x 256, sigma 25, clipped", "set9", "denoise", DENOISERS, size=256),
    "set9-50-256": Figure(
        "Set9, the middle 256 x 256, sigma 50",
        "set9",
        "denoise",
        ("paper-sigma50", *DENOISERS),
        {"sigma": 50.0},
        size=256,
    ),
    "set9-25-unclipped-256": Figure(
        "Set9, the middle 256 x 256, sigma 25, not clipped", "set9", "denoise", DENOISERS, {"clip": False}, size=256
    ),
    "set9-rules": Figure("Set9, sigma 25, clipped: stopping rules", "set9", "denoise", RULES),
    "kodak24-25": Figure(
        "Kodak24, whole, sigma 25, clipped",
        "kodak24",
        "denoise",
        DENOISERS,
        published={"ZS-N2N": 29.3, "DIP, best iterate": 28.90},
    ),
    "set5-x4": _enlarged("set5", 4, 28.44, 29.90),
    "set5-x4-bicubic": _enlarged("set5", 4, 28.44, 29.90, "bicubic"),
    "set14-x4": _enlarged("set14", 4, 26.05, 27.01),
    "set14-x4-bicubic": _enlarged("set14", 4, 26.05, 27.01, "bicubic"),
    "set5-x8": _enlarged("set5", 8, 24.37, 25.89),
    "set5-x8-bicubic": _enlarged("set5", 8, 24.37, 25.89, "bicubic"),
    "set14-x8": _enlarged("set14", 8, 23.10, 24.15),
    "set14-x8-bicubic": _enlarged("set14", 8, 23.10, 24.15, "bicubic"),
    "set5-deblur-256": Figure(
        "Set5, the middle 256 x 256, blurred by a Gaussian of 1.6 pixels, noise of sigma 2",
        "set5",
        "deblur",
        ("fast", "paper", "richardson-lucy", "wiener"),
        size=256,
    ),
    "set5-jpeg10-256": _compressed(10),
    "set5-jpeg30-256": _compressed(30),
    "set5-jpeg75-256": _compressed(75),
    "set11-50": _missing(0.5, 33.48),
    "set11-70": _missing(0.7, 28.50),
    "set11-90": _missing(0.9, 24.34),
}


def summary(name: str, figure: Figure, folder: Path, before: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the means and the figures of each picture, with the methods of an earlier summary that are not in RUNS."""
    groups = [_group(group) for group in tables.groups(tables.records(folder))]
    for old in (before or {}).get("groups", []):
        same = next((new for new in groups if new["protocol"] == old["protocol"]), None)
        if same is None:
            groups.append(old)
            continue
        same["means"] = {**old["means"], **same["means"]}
        for part in ("pictures", "fits", "curves"):
            there, new = old.get(part, {}), same[part]
            same[part] = {key: {**there.get(key, {}), **new.get(key, {})} for key in {**there, **new}}
    return {"experiment": figure.about, "published": figure.published, "groups": groups, "name": name}


def _group(group: tables.Group) -> dict[str, Any]:
    """Return what one protocol came to; each method with where and when."""
    means = {}
    for row in group.rows():
        found = [record for record in group.records if record["method"] == row.method and "device" in record]
        means[row.method] = {
            **vars(row),
            "figures": dict(row.figures),
            "devices": sorted({record["device"] for record in found}),
            "commits": sorted({str(record["commit"]) for record in found}),
            "environment": found[-1]["environment"] if found else None,
            "finished": max((record["finished"] for record in found), default=None),
        }
    return {
        "protocol": group.protocol,
        "words": group.words,
        "means": means,
        "pictures": group.by_picture("psnr"),
        "fits": _fits(group.records),
        "curves": _curves(group.records),
        "failed": [f"{r['method']} on {r['image']}: {r['error']}" for r in group.records if "error" in r],
    }


def _fits(found: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Return the PSNR of the fits whose mean is a result ("paper+twice"): by method and picture, each by itself."""
    fits: dict[str, dict[str, list[float]]] = {}
    for record in found:
        curves = record.get("curves", {})
        # the curves' PSNR is that over all channels, of the whole picture
        if "psnr, fit 1" in curves and record["protocol"]["metric"] == "rgb" and not record["protocol"]["border"]:
            each = [curve["value"][-1] for name, curve in curves.items() if name.startswith("psnr, fit")]
            fits.setdefault(record["method"], {})[record["image"]] = each
    return fits


def _curves(found: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Return each tenth point of the curves of what is returned (PSNR over all channels): by method and picture."""
    curves: dict[str, dict[str, dict[str, list[float]]]] = {}
    for record in found:
        for name, curve in record.get("curves", {}).items():
            if not name.startswith("psnr_output"):
                thin = {key: values[9::10] for key, values in curve.items()}
                curves.setdefault(record["method"], {}).setdefault(record["image"], {})[name] = thin
    return curves


def main(given: list[str] | None = None) -> None:
    """Run the figures that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figure", nargs="*", metavar="FIGURE", help="see --list")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--data", type=Path, help="folder of the picture sets; default: DIP_DATA")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for the records; default runs")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", type=arguments.words, help="other methods than the recipe's")
    parser.add_argument("--pictures", type=arguments.words, help="only these of the set")
    parser.add_argument("--size", type=int, help="only the middle so many pixels square, for a try")
    parser.add_argument("--iters", type=int, help="another count of iterations, for a try")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", help="another picture set, for a try")
    place_arguments.add(parser)
    options = parser.parse_args(given)
    if options.list or not options.figure:
        print("\n".join(f"{name:<24}{one.about}: {', '.join(one.methods)}" for name, one in FIGURES.items()))
        return
    wrong = [name for name in options.figure if name not in FIGURES]
    if wrong:
        parser.error(f"there is no figure {wrong[0]}; see --list")
    console = Console()
    for name in options.figure:
        figure = FIGURES[name]
        entries = datasets.pictures(options.set or figure.set, options.data)
        entries = [entry for entry in entries if options.pictures is None or entry.name in options.pictures]
        size = options.size or figure.size
        protocol = benchmark.Protocol(figure.task, figure.parameters, border=figure.border, size=size)
        progress = benchmark.run(
            entries,
            protocol,
            options.methods or figure.methods,
            options.out / name,
            name=options.set or figure.set,
            seeds=range(options.seeds),
            device=options.device,
            iters=options.iters,
            place=place_arguments.place(options, console.say),
            tell=lambda progress, job, record: comparison.tell(progress, record, console),
        )
        page = benchmark.report(options.out / name, title=figure.about)
        options.results.mkdir(parents=True, exist_ok=True)
        path = options.results / f"{name}.json"
        report = summary(name, figure, options.out / name, json.loads(path.read_text()) if path.exists() else None)
        path.write_text(json.dumps(plain(report), indent=1) + "\n")
        print(f"{name}: {progress.done} done, {progress.kept} there already, {progress.failed} failed; {page}")


if __name__ == "__main__":
    main()
