"""Names through Presidio, where it is installed; nothing is downloaded.

Presidio loads a spaCy model, and fetches one that is not there. So the model is looked for first.
"""

import importlib
from functools import lru_cache

from flywheel_core.curation.config import NamesConfig
from flywheel_core.curation.privacy import NameFinder, PresidioNames
from flywheel_core.errors import ConfigError


def name_finder(config: NamesConfig) -> NameFinder | None:
    """The recipe's name finder, one a process; `ConfigError` where it is not installed."""
    return _presidio(config) if config.finder == "presidio" else None


@lru_cache(maxsize=1)
def _presidio(config: NamesConfig) -> PresidioNames:
    try:
        spacy = importlib.import_module("spacy")
        presidio = importlib.import_module("presidio_analyzer")
        nlp_engine = importlib.import_module("presidio_analyzer.nlp_engine")
    except ImportError as error:
        raise ConfigError(
            f"curation.names.finder 'presidio': {error.name} is not installed on this machine; "
            "pip install presidio-analyzer on every node that curates, or set finder to 'none'"
        ) from error
    if not spacy.util.is_package(config.model):
        raise ConfigError(
            f"curation.names.model {config.model!r}: this spaCy model is not installed, and "
            "nothing is downloaded at run time; install its package on every node that curates"
        )
    provider = nlp_engine.NlpEngineProvider(
        nlp_configuration={
            "nlp_engine_name": "spacy",
            "models": [{"lang_code": config.language, "model_name": config.model}],
        }
    )
    analyzer = presidio.AnalyzerEngine(
        nlp_engine=provider.create_engine(), supported_languages=[config.language]
    )
    return PresidioNames(analyzer, config.language, config.score_min)
