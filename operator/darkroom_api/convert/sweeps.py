"""Searches of others to a TuningSweep's spec: Katib's Experiment and Kubeflow Trainer's OptimizationJob."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from darkroom_api import names
from darkroom_api.convert.jobs import JOBS, train_job
from darkroom_api.convert.pods import Object
from darkroom_api.convert.source import ConversionError, Source
from darkroom_api.v1alpha1.search_space import is_reserved
from darkroom_api.v1alpha1.tuning_sweep import MAX_TRIALS

_ALGORITHMS = {
    "random": "Random",
    "grid": "Grid",
    "tpe": "TPE",
    "multivariate-tpe": "TPE",
    "cmaes": "CMAES",
}
"""Katib's names and ours; the rest becomes Auto, with a note."""
_METRICS = "metrics are not read from logs or files: the program reports them itself, see docs/guides/reporting.md"
_KATIB_PARALLEL = 3
_TRIAL_FACTS = {"${trialSpec.Name}": names.ENV_JOB, "${trialSpec.Namespace}": names.ENV_NAMESPACE}
_PLACEHOLDER = re.compile(r"\$\{trialParameters\.([^}]+)\}")
_LARGEST_SEED = 2**31


def experiment(body: Source, *, image: str | None = None) -> Object:
    """kubeflow.org/v1beta1 Experiment of Katib."""
    spec = body.at("spec")
    if spec.value.get("nasConfig"):
        raise ConversionError(
            "spec.nasConfig: a search for architectures has no counterpart; vary vision.model.architecture"
        )
    parameters = [_katib_parameter(item) for item in spec.each("parameters")]
    variables = {parameter["name"]: parameter["env"] for parameter in parameters}
    template = _katib_template(spec.at("trialTemplate"), variables, image)
    parameters = [parameter | {"env": variables[parameter["name"]]} for parameter in parameters]
    spec.pass_over("resumePolicy")
    spec.pass_over("metricsCollectorSpec")
    spec.note(_METRICS, "metricsCollectorSpec" if "metricsCollectorSpec" in spec.value else "objective")
    pruning = _early_stopping(spec.at("earlyStopping"))
    algorithm, halving = _katib_algorithm(spec.at("algorithm"), parameters)
    stopping = {"maxTrials": _at_most(spec, "maxTrialCount", MAX_TRIALS)}
    if (failed := spec.number("maxFailedTrialCount")) is not None:
        stopping["maxFailedTrials"] = min(failed, MAX_TRIALS)
    made = {
        "objectives": [_katib_objective(spec.at("objective"))],
        "parameters": parameters,
        "algorithm": algorithm,
        "pruning": pruning or halving,
        "stopping": stopping,
        "parallelism": spec.number("parallelTrialCount") or _KATIB_PARALLEL,
        "trialTemplate": {"spec": template},
    }
    return {key: value for key, value in made.items() if value}


def optimization_job(body: Source, *, image: str | None = None) -> Object:
    """trainer.kubeflow.org/v1alpha1 OptimizationJob, whose trials read KUBEFLOW_TRAINER_OPT_* variables."""
    spec = body.at("spec")
    template = spec.at("trainJobTemplate")
    template.lose("metadata", "trials have labels of the sweep's own")
    spec.note(_METRICS, "objectives")
    objectives = [
        {"metric": item.text("metric"), "direction": item.get("direction", "Minimize")}
        for item in spec.each("objectives")
    ]
    return {
        "objectives": objectives,
        "parameters": [_trainer_parameter(item) for item in spec.each("parameters")],
        "algorithm": _trainer_algorithm(spec.at("searchAlgorithm")),
        "stopping": {"maxTrials": spec.number("numTrials") or 1},
        "parallelism": spec.number("parallelTrials") or 1,
        "trialTemplate": {"spec": train_job(template, image=image)},
    }


# --- Katib ---


def _katib_objective(objective: Source) -> Object:
    direction = "Minimize" if objective.get("type") == "minimize" else "Maximize"
    goal = objective.get("goal")
    objective.lose("additionalMetricNames", "every metric that a trial reports is in its status")
    objective.lose("metricStrategies", "a trial's value is the last, or that of the best epoch, as it reports it")
    target = {} if goal is None else {"target": number_text(goal)}
    return {"metric": objective.text("objectiveMetricName"), "direction": direction, **target}


def _katib_parameter(item: Source) -> Object:
    name = item.text("name") or ""
    space = item.at("feasibleSpace")
    kind = item.get("parameterType")
    made: Object = {"name": name, "env": env_name(name)}
    if kind in ("discrete", "categorical"):
        return made | {"choice": {"values": [str(value) for value in space.get("list", [])]}}
    scale = _scale(space)
    step = space.get("step")
    if step is not None and "scale" in scale:
        space.note("a step does not go with a logarithmic range", "step")
        step = None
    if kind == "int":
        ends = {"min": int(space.text("min") or 0), "max": int(space.text("max") or 0)}
        if ends["min"] == ends["max"]:  # what Katib takes for a range
            return made | {"choice": {"values": [str(ends["min"])]}}
        return made | {"int": {**ends, **scale, **({} if step is None else {"step": int(step)})}}
    if kind != "double":
        raise ConversionError(f"{item.path}.parameterType: {kind!r} is none of double, int, discrete and categorical")
    ends_text = {end: number_text(space.get(end, 0)) for end in ("min", "max")}
    return made | {"double": {**ends_text, **scale, **({} if step is None else {"step": number_text(step)})}}


def _scale(space: Source) -> Object:
    distribution = space.get("distribution", "uniform")
    if distribution in ("normal", "logNormal"):
        space.note(f"{distribution} is taken as a range without a favourite", "distribution")
    return {"scale": "Log"} if distribution in ("logUniform", "logNormal") else {}


def _katib_algorithm(algorithm: Source, parameters: list[Object]) -> tuple[Object, Object | None]:
    """The algorithm, and the pruning that Katib's hyperband stands for."""
    told = algorithm.get("algorithmName", "random")
    name = _ALGORITHMS.get(told, "Auto")
    settings = _settings(algorithm)
    if name == "Auto" and told != "hyperband":
        algorithm.note(f"{told} has no counterpart: Auto", "algorithmName")
    if name == "CMAES" and (len(parameters) < 2 or any("choice" in p for p in parameters)):
        algorithm.note("CMAES is for two or more numeric parameters: TPE", "algorithmName")
        name = "TPE"
    made: Object = {"name": name}
    if (seed := settings.pop("random_state", None)) is not None:
        made["seed"] = int(seed) % _LARGEST_SEED
    if name == "TPE" and (startup := settings.pop("n_startup_trials", None)) is not None:
        made["startupTrials"] = int(startup)
    halving = None
    if told == "hyperband":
        factor = int(float(settings.pop("eta", 3)))
        longest = int(float(settings.pop("r_l", 81)))
        resource = settings.pop("resource_name", "")
        algorithm.note(
            f"trials are pruned by epochs as they report them, in place of short ones by {resource}", "algorithmName"
        )
        halving = {
            "hyperband": {"minEpochs": 1, "maxEpochs": max(2, longest), "reductionFactor": min(max(2, factor), 10)}
        }
    for setting in settings:
        algorithm.note(f"{setting} has no counterpart", "algorithmSettings")
    return made, halving


def _settings(of: Source) -> dict[str, str]:
    return {str(item.get("name")): str(item.get("value")) for item in of.each("algorithmSettings")}


def _early_stopping(stopping: Source) -> Object | None:
    told = stopping.get("algorithmName")
    if told is None:
        return None
    settings = _settings(stopping)
    if told != "medianstop":
        stopping.note(f"{told} has no counterpart", "algorithmName")
        return None
    stopping.note(
        "the median of the completed trials at the same epoch, and only for trials that report live", "algorithmName"
    )
    startup, warmup = settings.get("min_trials_required", "3"), settings.get("start_step", "4")
    return {"median": {"startupTrials": int(startup), "warmupEpochs": int(warmup)}}


def _at_most(spec: Source, key: str, most: int) -> int:
    given = spec.number(key)
    if given is None:
        spec.note(f"absent: {most}, the most there is", key)
    elif given > most:
        spec.note(f"{most} is the most there is", key)
    return min(given or most, most)


def _katib_template(template: Source, variables: dict[str, str], image: str | None) -> Object:
    """The trial's spec with variables in place of placeholders; a variable that was there gives a parameter its own."""
    if template.value.get("configMap"):
        raise ConversionError(f"{template.path}.configMap: put the template from there into trialSpec")
    for key in ("successCondition", "failureCondition", "primaryPodLabels"):
        template.lose(key, "a trial has ended when its TrainingJob has")
    template.pass_over("retain")
    references: dict[str, str] = {}
    for item in template.each("trialParameters"):
        item.pass_over("description")
        references[str(item.get("name"))] = item.text("reference") or ""
    inner = template.at("trialSpec")
    group = str(inner.get("apiVersion", "")).partition("/")[0]
    convert = JOBS.get((group, str(inner.get("kind"))))
    if convert is None:
        kinds = ", ".join(kind for _, kind in JOBS)
        raise ConversionError(f"{inner.path}.kind: {inner.get('kind')} has no counterpart; there are {kinds}")
    inner.lose("metadata", "trials have labels of the sweep's own")
    spec = convert(inner, container_name=template.text("primaryContainerName"), image=image)
    _fill(spec["container"], references, variables)
    for place in placeholders_left(spec):
        template.note(f"{place} is left: command, args and whole values of env can vary", "trialSpec")
    return spec


def _fill(container: Object, references: Mapping[str, str], variables: dict[str, str]) -> None:
    """Placeholders become $(VARIABLE), in whose place the kubelet puts the value."""
    kept = []
    for variable in container.pop("env", []):
        whole = _PLACEHOLDER.fullmatch(variable["value"])
        reference = references.get(whole[1], "") if whole else ""
        if reference in variables:
            variables[reference] = variable["name"]
        else:
            kept.append({**variable, "value": _substituted(variable["value"], references, _TRIAL_FACTS)})
    if kept:
        container["env"] = kept
    for key in container.keys() & {"command", "args"}:
        container[key] = [_substituted(word, references, variables | _TRIAL_FACTS) for word in container[key]]


def _substituted(text: str, references: Mapping[str, str], variables: Mapping[str, str]) -> str:
    def value_of(found: re.Match[str]) -> str:
        variable = variables.get(references.get(found[1], ""))
        return f"$({variable})" if variable else found[0]

    return _PLACEHOLDER.sub(value_of, text)


def placeholders_left(value: Any) -> Iterator[str]:
    """Those that stand in texts at any depth."""
    if isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from placeholders_left(inner)
    elif isinstance(value, str):
        yield from (found[0] for found in _PLACEHOLDER.finditer(value))


def env_name(parameter: str) -> str:
    """A variable for a parameter: num-layers becomes NUM_LAYERS."""
    name = re.sub(r"[^A-Z0-9_]", "_", parameter.upper())
    return f"PARAM_{name}" if is_reserved(name) or not name or name[0].isdigit() else name


def number_text(value: Any) -> str:
    """A number as the API writes it: no plus sign in an exponent."""
    return str(value).lower().replace("e+", "e")


# --- Kubeflow Trainer ---


def _trainer_parameter(item: Source) -> Object:
    name = item.text("name") or ""
    space = item.at("searchSpace")
    made: Object = {"name": name.lstrip("_"), "env": f"KUBEFLOW_TRAINER_OPT_{name.upper()}"}
    if "categorical" in space.value:
        return made | {"choice": {"values": [str(value) for value in space.at("categorical").get("choices", [])]}}
    log = "logUniform" in space.value
    ends = space.at("logUniform" if log else "uniform")
    scale = {"scale": "Log"} if log else {}
    low, high = (number_text(ends.get(end)) for end in ("min", "max"))
    if ends.get("type", "Float") == "Int":
        return made | {"int": {"min": int(float(low)), "max": int(float(high)), **scale}}
    return made | {"double": {"min": low, "max": high, **scale}}


def _trainer_algorithm(algorithm: Source) -> Object:
    if "grid" in algorithm.value:
        algorithm.pass_over("grid")
        return {"name": "Grid"}
    seed = algorithm.at("random").get("seed")
    return {"name": "Random", **({} if seed is None else {"seed": int(seed) % _LARGEST_SEED})}
