"""A sweep's tables, as text: one source for the page, the Markdown file and the terminal."""

from __future__ import annotations

from rich.table import Table as RichTable

from device_tests.report.sweep_figures import FEW_SPEAKERS, LEVEL, Difference, SettingFigures, Spread, Sweep, TrialList
from device_tests.report.table import NONE, Table, interval_text, markdown_document, terminal_table


def claims_table(sweep: Sweep) -> Table:
    """Every claim with its verdict on each trial list."""
    statements = list(dict.fromkeys(claim.statement for claim in sweep.claims))
    rows = []
    for statement in statements:
        claims = [claim for claim in sweep.claims if claim.statement == statement]
        verdicts = [
            "; ".join(claim.verdict for claim in claims if claim.trial_list in (one.key, None))
            for one in sweep.trial_lists
        ]
        rows.append((statement, *verdicts, " / ".join(claim.evidence for claim in claims)))
    return Table(
        "Claims of the method on this corpus",
        ("claim", *(one.name for one in sweep.trial_lists), "evidence"),
        tuple(rows),
        f"Shown: the {LEVEL:.0%} intervals of the difference over seeds and over trials both lie on the claim's side "
        "of its limit; not shown: both lie on the other side; undecided: anything else, one seed, or fewer "
        f"than {FEW_SPEAKERS} speakers. Limits were fixed beforehand; "
        "nothing corrects for the number of claims.",
        left=2 + len(sweep.trial_lists),
    )


def summary_table(sweep: Sweep, trial_list: TrialList) -> Table:
    """Size and accuracy of every setting on one trial list."""
    return Table(
        f"Size and accuracy: {trial_list.name}",
        ("setting", "bits", "artifact", "× fp32", ".pte", ".tflite", "EER %", "minDCF", "cosine"),
        tuple(
            (
                setting.label,
                f"{setting.size.bits_per_weight:.2f}",
                f"{setting.size.artifact_bytes:,}",
                f"{setting.size_ratio:.3f}",
                _file_bytes(setting, "pte"),
                _file_bytes(setting, "tflite"),
                _spread_text(setting.on(trial_list.key).eer, 100, 2),
                _spread_text(setting.on(trial_list.key).min_dcf, 1, 3),
                f"{setting.on(trial_list.key).cosine.mean:.4f}",
            )
            for setting in sweep.settings
        ),
        f"{_trials_text(trial_list)}. Bits per weight and bytes of seed {sweep.seeds[0]}: the artifact's tensors, and "
        f"the verified model files. EER, minDCF and cosine of embeddings to fp32: mean over {_seeds_text(sweep)}, ± "
        "sample standard deviation.",
    )


def seeds_table(sweep: Sweep, trial_list: TrialList) -> Table:
    """Every seed of every setting on one trial list."""
    rows = []
    for setting in sweep.settings:
        for one, size in zip(setting.on(trial_list.key).seeds, setting.sizes, strict=True):
            rows.append(
                (
                    setting.label,
                    str(one.seed),
                    f"{size.bits_per_weight:.3f}",
                    f"{size.artifact_bytes:,}",
                    f"{100 * one.evaluation.eer:.2f}",
                    interval_text(one.evaluation),
                    f"{one.evaluation.min_dcf:.3f}",
                    f"{one.cosine_mean:.5f}",
                    f"{one.cosine_min:.5f}",
                )
            )
    first = sweep.settings[0].on(trial_list.key).seeds[0].evaluation
    return Table(
        f"Every seed: {trial_list.name}",
        ("setting", "seed", "bits", "artifact", "EER %", "95 % interval", "minDCF", "cosine", "lowest"),
        tuple(rows),
        f"The interval is a bootstrap of {first.eer_interval.draws:,} resamples of {first.eer_interval.unit}; minDCF "
        f"at p_target {first.p_target:g}; cosine of embeddings to the fp32 network of the same seed, mean and lowest.",
        left=2,
    )


def differences_table(sweep: Sweep, trial_list: TrialList) -> Table:
    """Paired differences of EERs on one trial list."""
    return Table(
        f"Paired differences of EER, in points: {trial_list.name}",
        ("setting", "minus", "mean", "95 % over seeds", "95 % over trials", "of each seed"),
        tuple(
            (
                one.setting,
                one.other,
                f"{100 * one.mean:+.2f}",
                _seed_interval_text(one),
                f"{100 * one.over_trials.low:+.2f} .. {100 * one.over_trials.high:+.2f}",
                " ".join(f"{100 * value:+.2f}" for value in one.per_seed),
            )
            for one in sweep.differences
            if one.trial_list == trial_list.key
        ),
        "Below 0 the first setting is the better one. Over seeds: Student's t interval of the seeds' differences. Over "
        "trials: bootstrap of the mean over seeds, every network on the same resampled trials.",
        left=2,
    )


def circumstances(sweep: Sweep) -> tuple[tuple[str, str], ...]:
    """Where the figures come from, as pairs of name and value."""
    steps = {setting.family: setting.finetune_steps for setting in sweep.settings}
    return (
        ("made", sweep.created_at.strftime("%Y-%m-%d %H:%M UTC")),
        ("seeds", ", ".join(map(str, sweep.seeds))),
        *((one.name, _trials_text(one)) for one in sweep.trial_lists),
        ("fine-tuning steps", ", ".join(f"{family} {count}" for family, count in steps.items())),
        ("software", ", ".join(f"{name} {version}" for name, version in sweep.tools.items())),
    )


def sweep_tables(sweep: Sweep) -> list[Table]:
    """All tables in the order of the report."""
    makers = (summary_table, differences_table, seeds_table)
    return [claims_table(sweep), *(make(sweep, one) for make in makers for one in sweep.trial_lists)]


def sweep_markdown(sweep: Sweep) -> str:
    """The whole report in Markdown."""
    return markdown_document(sweep.title, circumstances(sweep), sweep.notes, sweep_tables(sweep))


def terminal_tables(sweep: Sweep) -> list[RichTable]:
    """Size and accuracy on every trial list, and the claims, for a terminal of 100 columns."""
    sources = [*(summary_table(sweep, one) for one in sweep.trial_lists), _short_claims(claims_table(sweep))]
    return [terminal_table(source) for source in sources]


def _short_claims(claims: Table) -> Table:
    rows = tuple(row[:-1] for row in claims.rows)
    return Table(claims.title, claims.columns[:-1], rows, claims.caption, left=claims.left)


def _file_bytes(setting: SettingFigures, file_format: str) -> str:
    count = {str(name): count for name, count in setting.file_bytes.items()}.get(file_format)
    return NONE if count is None else f"{count:,}"


def _spread_text(spread: Spread, factor: float, digits: int) -> str:
    mean = f"{factor * spread.mean:.{digits}f}"
    return mean if spread.std is None else f"{mean} ± {factor * spread.std:.{digits}f}"


def _seed_interval_text(difference: Difference) -> str:
    interval = difference.over_seeds
    return NONE if interval is None else f"{100 * interval.low:+.2f} .. {100 * interval.high:+.2f}"


def _trials_text(trial_list: TrialList) -> str:
    who = f" of {trial_list.speakers} speakers" if trial_list.speakers is not None else ""
    return (
        f"{trial_list.target_trials:,} target and {trial_list.nontarget_trials:,} non-target trials over "
        f"{trial_list.utterances:,} utterances{who}"
    )


def _seeds_text(sweep: Sweep) -> str:
    return f"{len(sweep.seeds)} seed{'s' if len(sweep.seeds) > 1 else ''}"
