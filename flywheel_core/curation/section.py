"""What a recipe says of curation."""

from typing import Literal

from pydantic import Field, model_validator

from flywheel_core.curation.config import (
    JobsConfig,
    LanguageConfig,
    LintRule,
    NamesConfig,
    RowRules,
    SafetyConfig,
)
from flywheel_core.engines.config import EmbedderConfig
from flywheel_core.sections import Section, Share

Stratum = Literal["locale", "language", "jtbd", "depth"]


class CurationSection(Section):
    """Phases I–III of §2.2.1 and Table 1's caps.

    `keep_share` is the paper's *p* (unpublished; ours), of the rows that are nobody's duplicate.
    They are clustered by the embedding of the turn to be answered, at most `cluster_rows_max` in
    a cluster, and pruned within it: larger clusters miss fewer neighbours, and cost more.

    Split sizes are per surface; `stop`, `select` and `gate` are disjoint from training by
    conversation and, where known, by user.

    Each stratum of Table 1 (locale, language, jtbd, depth) keeps its share of the traffic, or the
    share `strata_targets` gives it (stratum → value → share), within `strata_tolerance` (ours).

    RL prompts are near-policy: turns that the production model served (§3.5.2). Where there are too
    few, turns of older models fill up to `rl_older_share_max` of them; the default admits none.

    `safety`, `names`, `language` and `jobs` say who judges and labels a row in Phase I; by default
    rules and the log's own fields do, and no model is asked. `lint` names the rules of the linter
    that clean supervised rows and RL prompts (Table 7, §3.5.6). Off by default: it changes what a
    model is trained on, so a recipe says it, and the simulated world's language is closed.
    """

    keep_share: Share = 0.9
    embedder: EmbedderConfig = EmbedderConfig()
    cluster_rows_max: int = Field(1024, ge=2, le=8192)
    first_turn_share_min: Share = 0.10
    character_share_max: Share = 0.03
    rl_older_share_max: Share = 0.0
    strata_tolerance: Share = 0.02
    strata_targets: dict[Stratum, dict[str, Share]] = Field(default_factory=dict)
    prompts_per_surface: dict[str, int]
    safety: SafetyConfig = SafetyConfig()
    names: NamesConfig = NamesConfig()
    language: LanguageConfig = LanguageConfig()
    jobs: JobsConfig = JobsConfig()
    lint: tuple[LintRule, ...] = ()

    @property
    def row_rules(self) -> RowRules:
        """What Phase I does with a row by itself."""
        return RowRules(names=self.names, language=self.language, jobs=self.jobs)

    @model_validator(mode="after")
    def _targets_are_shares_of_one_set(self) -> "CurationSection":
        for stratum, shares in self.strata_targets.items():
            if sum(shares.values()) > 1 + 1e-9:
                raise ValueError(
                    f"strata_targets.{stratum}: the shares add up to {sum(shares.values()):.3f}; "
                    "they may add up to 1 at most"
                )
        return self

    @model_validator(mode="after")
    def _a_character_may_have_a_prompt(self) -> "CurationSection":
        total = sum(self.prompts_per_surface.values())
        if total and total * self.character_share_max < 1:
            raise ValueError(
                f"character_share_max {self.character_share_max}: of the {total} prompts of "
                "prompts_per_surface that is less than one a character, so none could be taken; "
                "ask for more prompts, or raise it"
            )
        return self

    @model_validator(mode="after")
    def _known_splits(self) -> "CurationSection":
        from flywheel_core.records import SPLITS

        unknown = set(self.prompts_per_surface) ^ set(SPLITS)
        if unknown:
            raise ValueError(
                f"prompts_per_surface must name exactly {', '.join(SPLITS)}; "
                f"differs in {', '.join(sorted(unknown))}"
            )
        return self
