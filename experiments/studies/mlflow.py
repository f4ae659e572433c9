"""Finished runs of a sweep in MLflow, the tracker that people have already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dpfc._support.packages import require

__all__ = ["log_runs"]

_KEY = "dpfc.key"


def log_runs(uri: str, study: str, records: Iterable[Mapping[str, Any]]) -> int:
    """Log runs that MLflow does not have yet; returns how many.

    A run is known by its key, so that a sweep which was stopped logs nothing twice.

    Parameters
    ----------
    uri : str
        Of the tracking server, a database or a folder.
    study : str
        Name of the experiment.
    records : iterable of mapping
        As `RunStore` keeps them.

    Raises
    ------
    MissingDependencyError
        If MLflow is not installed.
    RuntimeError
        If the server refuses; results of the sweep are not touched by that.
    """
    require("mlflow", "--mlflow", "mlflow")
    import mlflow

    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(study)
        number = client.create_experiment(study) if experiment is None else experiment.experiment_id
        logged = 0
        for record in records:
            if not client.search_runs([number], f"tags.`{_KEY}` = '{record['key']}'"):
                _log(client, number, record)
                logged += 1
    except mlflow.exceptions.MlflowException as error:
        raise RuntimeError(f"MLflow at {uri}: {' '.join(str(error).split())}") from error
    return logged


def _log(client: Any, experiment: str, record: Mapping[str, Any]) -> None:
    tags = {name: str(record[name]) for name in ("dataset", "method", "label", "code", "finished")}
    tags |= {"private": str(record.get("private")), "backbone": str(record["backbone"])}
    run = client.create_run(experiment, tags=tags, run_name=f"{record['label']} {record['key']}")
    identity = run.info.run_id
    settings = {name: record[name] for name in ("epsilon", "delta", "seed")}
    for name, value in (settings | record["parameters"]).items():
        client.log_param(identity, name, value)
    for name in ("accuracy", "seconds"):
        if record.get(name) is not None:
            client.log_metric(identity, name, record[name])
    if record["error"] is not None:
        client.set_tag(identity, "error", record["error"])
    # Last: a run that was cut off before it has no key, and is logged again.
    client.set_tag(identity, _KEY, record["key"])
    client.set_terminated(identity, "FINISHED" if record["status"] == "ok" else "FAILED")
