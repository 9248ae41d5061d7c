"""Execution of models: the protocols, the vLLM engines behind them, and fakes.

`base`, `config`, `environment`, `checkpoint`, `rendering`, `fake` and `pool` import no torch and no
vLLM; the engines themselves do so only when they start.
"""
