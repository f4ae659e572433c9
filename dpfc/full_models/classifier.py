"""DP-SGD on whole networks, in scikit-learn's clothes."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from dpfc._support.fitted import fitted_or_nothing
from dpfc._support.memory import check_memory
from dpfc._support.model_files import write_model
from dpfc._support.validation import (
    ACCOUNTANT,
    BOUND,
    DELTA,
    EPSILON,
    RELATION,
    ROWS,
    STEPS,
    Choice,
    Constraint,
    Flag,
    Interval,
    Text,
    check_parameters,
    declared,
)
from dpfc.accounting import PrivacyPlan, PrivacyStatement, ReleaseRequest, calibrate
from dpfc.full_models.augmentation import AUGMENTATIONS, Augmentation
from dpfc.full_models.dp_sgd.clipping import CLIPPINGS, make_clipped_sums
from dpfc.full_models.dp_sgd.dry_run import check_every_row
from dpfc.full_models.dp_sgd.mechanism import COUNT, GRADIENT, GradientMechanism
from dpfc.full_models.dp_sgd.module_state import WatchedState, published
from dpfc.full_models.dp_sgd.people import People
from dpfc.full_models.dp_sgd.rows import (
    ModuleRows,
    as_input,
    bounded_rows,
    check_labels,
    check_rows,
    has_type,
    row_kind,
)
from dpfc.full_models.optimizers.averaging import WeightAverage
from dpfc.full_models.optimizers.factory import OptimizerSettings, StepRule, make_optimizer
from dpfc.full_models.prediction import NetworkPredictor
from dpfc.full_models.saving import network_bytes
from dpfc.full_models.starting import run_digest, start_module
from dpfc.full_models.trainable import TRAINABLE
from dpfc.full_models.training import CheckpointPlan, TrainingRun
from dpfc.linear.sklearn_guard import gaps_around_fit, warn_under_model_selection
from dpfc.mechanism.assumptions import training_assumptions
from dpfc.mechanism.delta import delta_notes
from dpfc.mechanism.groups import group_codes
from dpfc.mechanism.labels import public_classes
from dpfc.mechanism.noise import NoiseSource, noise_source
from dpfc.mechanism.paid_models import model_room, reserve_room
from dpfc.mechanism.private_run import PrivateRun
from dpfc.mechanism.progress import step_progress
from dpfc.mechanism.rows import BlockSource, label_gaps, warn_of_numbered_labels
from dpfc.mechanism.too_small import training_notes
from dpfc.mechanism.user_rows import check_columns

__all__ = ["DPSGDClassifier"]

_COUNT_SHARE = 0.005
_FURTHER = ("_columns_in",)


@declared
@dataclass(eq=False, repr=False)
class DPSGDClassifier(NetworkPredictor):
    """Private training of a whole network: Poisson-sampled, clipped, noisy gradients.

    Each step draws every row with `sampling_probability`, independently, sums the rows'
    clipped gradients, adds Gaussian noise, and hands the mean to an optimizer. The noise is
    calibrated before the first draw, for the steps that are planned and the sampling that runs.
    With `groups`, persons are drawn so, each with one of his rows (`dp_sgd.people`); all that is
    counted below is then persons.

    Parameters
    ----------
    module : torch.nn.Module or str, default="mlp"
        From rows (n, ...) to scores (n, n_classes). Trained on a copy; its weights are where
        training starts, and must hold nothing of the private rows. A name is one of
        `dpfc.full_models.NETWORKS`, with fresh weights.
    epsilon : float in (0, inf], default=1.0
        inf switches noise off; the result is then not private.
    delta : float in (0, 1), default=1e-5
    classes : array-like of labels or None, default=None
        Public list of classes; None reads them from `y`, with a `PrivacyWarning`.
    vocabulary_size : int or None, default=None
        Public number of tokens, for a network by name on rows of whole numbers ("dlr").
    neighboring_relation : {"add_or_remove_one", "replace_one"}
    n_samples : int or None, default=None
        A number of rows that is public knowledge; None releases a noisy count, which gradients
        are divided by. The true number is used under "replace_one" only.
    accountant : {"auto", "pld", "rdp", "exact"}, default="auto"
        "auto" takes privacy loss distributions where rows are sampled.
    ledger : path-like or None, default=None
        `PrivacyLedger` file; the whole fit is spent there before anything is released. Sampled
        gradients need a budget with the "renyi" filter.
    dataset : str or None, default=None
        Name of the budget in `ledger`.
    n_steps : int, default=200
    sampling_probability : float in (0, 1], default=0.1
        Expected share of the rows in a step. n_steps times this is the number of epochs.
    l2_clip_norm : float, default=1.0
        C, what a row's gradient over all trained parameters is clipped at.
    clipping : {"hooks", "functorch", "ghost"}, default="hooks"
        How one gets at single rows' gradients. "ghost" needs least memory, for linear layers
        above all. All give the same up to rounding.
    input_bound : float in (0, inf), default=1e6
        Public: numbers in float rows beyond it, either way, are taken to be it, at the fit and
        at predictions. Scale rows so that they are far below it.
    optimizer : str, default="adam"
        One of `OPTIMIZERS`. All use the noisy gradient and nothing else of the data.
    learning_rate : float or None, default=None
        None takes a default of the optimizer.
    momentum : float in [0, 1), default=0.9
    weight_decay : float, default=0.0
    schedule : {"constant", "linear", "cosine", "refined"}, default="constant"
    warmup_steps : int, default=0
    schedule_norms : sequence of float or None, default=None
        For "refined": `gradient_norms_` of an earlier private fit, whose budget counts too.
    mechanic : bool, default=False
        Let Mechanic scale the learning rate while it trains. At small ε it may not get off the
        ground.
    trainable : {"all", "head", "norm-and-head", "lora"} or sequence of str, default="all"
        What is trained; names are parameters, or beginnings of their names. The rest of the
        module stays as it came, and costs nothing.
    augmentation : {"flip", "crop", "crop-flip"}, callable or None, default=None
        Changes a batch of rows, each from itself alone.
    augmentation_multiplicity : int, default=1
        Copies a row; its gradient is the mean over them, and costs no more privacy than one.
    ema_decay : float in (0, 1) or None, default=None
        Publish a moving average of the weights in place of the last ones.
    physical_batch_size : int, default=128
        Most copies of rows that go through the network at a time. Memory grows with it. With 1,
        nothing that is computed of a row can depend on another one, by construction; otherwise
        this is tried out on made-up rows before the first step. A module of your own that takes
        values out of tensors (`if (x == -1).any()`) is given one row at a time in any case.
    checkpoint : path-like or None, default=None
        File that a stopped fit goes on from when it is called again with the same module,
        parameters and data, without a new spend. Removed when the fit is complete. Going on
        twice from copies of one file, and publishing both, is covered by no statement.
    checkpoint_every : int, default=50
        Steps between two checkpoints; Ctrl-C keeps one, too.
    device : {"auto", "cpu", "cuda"}, default="auto"
    random_state : int, Generator, RandomState or None, default=None
        None draws from the operating system's secure source. A seed makes the run
        reproducible, also over a stop, and its result not private.
    verbose : bool, default=False
        Show a progress bar with the ε spent so far.

    Attributes
    ----------
    module_ : torch.nn.Module
        The trained network, in evaluation mode.
    classes_ : ndarray of shape (n_classes,)
    input_shape_ : tuple of int
        Of a row.
    row_kind_ : {"floats", "bytes", "tokens"}
        What rows have to be. Whole numbers are tokens to a module of your own and to "dlr", and
        floats to the other networks.
    feature_names_in_ : ndarray of shape (n_features,)
        Of a data frame with names for columns.
    gradient_norms_ : list of float
        Of the noisy gradients, a step each; released.
    privacy_ : PrivacyStatement

    References
    ----------
    Abadi et al. (2016), Deep Learning with Differential Privacy.
    De et al. (2022), Unlocking High-Accuracy Differentially Private Image Classification through
    Scale.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = DPSGDClassifier("mlp", epsilon=8.0, classes=range(10), n_steps=20)
    >>> model.fit(X / 16, y).privacy_.releases[-1].count
    20
    """

    module: torch.nn.Module | str = "mlp"
    epsilon: Annotated[float, EPSILON] = 1.0
    delta: Annotated[float, DELTA] = 1e-5
    _: KW_ONLY
    classes: Iterable[Any] | None = None
    vocabulary_size: int | None = None
    neighboring_relation: Annotated[str, RELATION] = "add_or_remove_one"
    n_samples: Annotated[int | None, ROWS] = None
    accountant: Annotated[str, ACCOUNTANT] = "auto"
    ledger: Annotated[str | os.PathLike[str] | None, Text(path=True)] = None
    dataset: Annotated[str | None, Text()] = None
    n_steps: Annotated[int, STEPS] = 200
    sampling_probability: Annotated[float, Interval(1e-9, 1, closed="right")] = 0.1
    l2_clip_norm: Annotated[float, BOUND] = 1.0
    clipping: Annotated[str, Choice(CLIPPINGS)] = "hooks"
    input_bound: Annotated[float, Interval(0, math.inf)] = 1e6
    optimizer: str = "adam"
    learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup_steps: int = 0
    schedule_norms: Sequence[float] | None = None
    mechanic: bool = False
    trainable: str | Sequence[str] = "all"
    augmentation: str | Callable[[torch.Tensor], torch.Tensor] | None = None
    augmentation_multiplicity: Annotated[int, Interval(1, 65_536, closed="both", integer=True)] = 1
    ema_decay: Annotated[float | None, Interval(0, 1, words=(None,))] = None
    physical_batch_size: Annotated[int, Interval(1, closed="left", integer=True)] = 128
    checkpoint: Annotated[str | os.PathLike[str] | None, Text(path=True)] = None
    checkpoint_every: Annotated[int, Interval(1, closed="left", integer=True)] = 50
    device: Annotated[str, Choice(("auto", "cpu", "cuda"))] = "auto"
    random_state: int | np.random.Generator | np.random.RandomState | None = None
    verbose: Annotated[bool, Flag()] = False

    _constraints: ClassVar[dict[str, Constraint]]

    # -- fitting ---------------------------------------------------------------------

    def privacy_plan(self) -> PrivacyPlan:
        """Work out what `fit` will release and with how much noise; needs no data.

        Raises
        ------
        ValueError
            If a parameter is not allowed.
        """
        self._check_parameters()
        requests = [ReleaseRequest(GRADIENT, 1.0, self.n_steps, self.sampling_probability)]
        if self.neighboring_relation == "add_or_remove_one" and self.n_samples is None:
            requests = [
                ReleaseRequest(COUNT, _COUNT_SHARE),
                ReleaseRequest(
                    GRADIENT, 1.0 - _COUNT_SHARE, self.n_steps, self.sampling_probability
                ),
            ]
        return calibrate(
            requests,
            target_epsilon=self.epsilon,
            target_delta=self.delta,
            neighboring_relation=self.neighboring_relation,
            accountant=self.accountant,
        )

    def fit(self, X: Any, y: ArrayLike | None = None, *, groups: ArrayLike | None = None) -> Self:
        """Train under the budget, or go on with a fit that was stopped.

        Parameters
        ----------
        X : array-like or torch.Tensor of shape (n_samples, ...), or FeatureCache
            Private rows: floats; bytes (uint8), which are divided by 255; or other integers,
            which go to the module as tokens. Which of these is public: the type of the array
            tells. Lists have none: they are floats, or tokens where `vocabulary_size` is given.
        y : array-like of shape (n_samples,), optional
            Labels; left out for a feature cache, which has its own.
        groups : array-like of shape (n_samples,), optional
            Whose rows are, numbers or strings: what is protected is then a person with all of his
            rows. A feature cache with a group column has its own.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter, the data, the module or a checkpoint is not allowed; nothing was
            spent then.
        LedgerError, BudgetExceeded
            If the ledger has no such budget, or too little is left; nothing was spent then.
        FloatingPointError
            If the weights diverged; the budget is spent.
        RuntimeError
            If the module or the augmentation kept something of private rows in training alone;
            the budget is spent, and nothing is published.
        KeyboardInterrupt
            At Ctrl-C, after the step in hand; with `checkpoint`, the same call goes on.

        Warns
        -----
        PrivacyWarning
            If the run is seeded, the classes are read from the labels, or scikit-learn's
            own search or cross-validation calls it.
        UserWarning
            If a column of a data frame is called as ids or an index are.
        """
        run = self._check_parameters()
        with fitted_or_nothing(self, _FURTHER):
            warn_under_model_selection()
            plan = self.privacy_plan()
            rows = self._open_rows(X, y, groups)
            module = self._start(rows.X.dtype, run.noise)
            self._check_size(module)
            start = copy.deepcopy(module)  # no private row goes through it
            like = as_input(torch.zeros_like(rows.X[:1]), self._device())
            watched = WatchedState(module, like, self._augmentation())
            self._try_rows(module, rows)
            kept = self._open_checkpoint(module, rows)
            run.open(
                plan,
                f"fit {type(self).__name__}",
                token=None if kept is None else kept.token,
                begun=kept is not None and kept.begun,
                drawn=kept is not None and kept.statement is not None,
                unit_of_spend="row" if rows.people is None else "group",
            )
            run.warn_if_seeded()
            self._reserve(module, kept)
            with step_progress(plan, GRADIENT) if self.verbose else nullcontext() as run.on_release:
                mechanism, training = self._train(module, rows, run, kept)
            watched.check()
            self.module_ = published(start, module).eval()
            self.gradient_norms_ = list(training.rule.gradient_norms)
            named = isinstance(X, BlockSource) and X.class_names is not None
            statement = None if kept is None else kept.statement
            gaps = label_gaps(X)
            grouped = rows.people is not None
            self.privacy_ = statement or self._state(mechanism, named, gaps, grouped=grouped)
            if kept is not None and statement is None:
                kept.add_statement(self.privacy_)
            run.finish(self.privacy_, None if kept is None else kept.forget)
        return self

    def _reserve(self, module: torch.nn.Module, checkpoints: CheckpointPlan | None) -> None:
        """See, before the spend, that what it buys can be written."""
        numbers = sum(tensor.numel() for tensor in module.state_dict().values())
        reserve_room(model_room(numbers + 4 * self.n_steps, len(self.classes_)))
        if checkpoints is not None:  # weights, their average, and two states of the optimizer
            checkpoints.begin(model_room(4 * numbers, len(self.classes_)))

    def _open_rows(self, X: Any, y: ArrayLike | None, groups: ArrayLike | None) -> ModuleRows:
        """Check the data, and set the public attributes."""
        rows = check_rows(X, y)
        units = group_codes(X, groups, len(rows.X))
        check_columns(self, X, reset=True)
        self.features_from_ = getattr(X, "origin", None) if isinstance(X, BlockSource) else None
        # Whole numbers are tokens to networks that take such, and numbers to all others. Of what
        # has no type of its own, the values would tell which: there, vocabulary_size does.
        takes_tokens = not isinstance(self.module, str) or self.module == "dlr"
        takes_tokens &= has_type(X) or self.vocabulary_size is not None
        tensor = rows.X if takes_tokens or row_kind(rows.X) == "bytes" else rows.X.float()
        self.row_kind_ = row_kind(tensor)
        if self.vocabulary_size is not None and self.row_kind_ == "floats":
            raise ValueError(
                "X holds floats, and vocabulary_size is for rows of whole numbers (tokens)."
            )
        warn_of_numbered_labels(X)
        self.classes_ = public_classes(self.classes, [rows.labels], rows.class_names)
        self.input_shape_ = tuple(tensor.shape[1:])
        bounded = bounded_rows(tensor, self.input_bound)
        people = None if units is None else People.of(units)
        return ModuleRows(bounded, check_labels(rows.labels, self.classes_), people)

    def _train(
        self,
        module: torch.nn.Module,
        rows: ModuleRows,
        run: PrivateRun,
        checkpoints: CheckpointPlan | None,
    ) -> tuple[GradientMechanism, TrainingRun]:
        sums = make_clipped_sums(self.clipping, module.train(), float(self.l2_clip_norm))
        try:
            mechanism = GradientMechanism(
                rows,
                sums,
                run,
                n_samples=self.n_samples,
                augmentation=self._augmentation(),
                physical_batch_size=self.physical_batch_size,
                device=self._device(),
            )
            training = TrainingRun(
                module,
                mechanism,
                lambda deviation: self._make_rule(sums.parameters, deviation, run.noise),
                None if self.ema_decay is None else WeightAverage(sums.parameters, self.ema_decay),
                checkpoints,
            )
            training.run()
        finally:
            sums.close()
        return mechanism, training

    def _check_parameters(self) -> PrivateRun:
        check_parameters(self.get_params(deep=False), self._constraints)
        if math.isinf(self.l2_clip_norm) and not math.isinf(self.epsilon):
            raise ValueError("l2_clip_norm must be finite unless epsilon is inf, got inf.")
        if self.augmentation_multiplicity > 1:
            if self.augmentation is None:
                raise ValueError("augmentation_multiplicity > 1 needs an augmentation.")
            if self.clipping == "ghost":
                raise ValueError(
                    'clipping="ghost" cannot average copies of a row before they are clipped: use '
                    'clipping="hooks", or augmentation_multiplicity=1.'
                )
        self._augmentation()
        names = self.trainable
        listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
        if not listed and not (isinstance(names, str) and names in TRAINABLE):
            raise ValueError(
                f"trainable must be {Choice(TRAINABLE)}, or a list of names, got "
                f"{self.trainable!r}."
            )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError('device="cuda": PyTorch finds no CUDA GPU. Use "cpu" or "auto".')
        run = PrivateRun(noise_source(self.random_state), ledger=self.ledger, dataset=self.dataset)
        # An optimizer that cannot be made, for want of a package, must not show after a spend.
        self._make_rule([torch.nn.Parameter(torch.zeros(1))], 0.0, run.noise)
        return run

    def _settings(self) -> OptimizerSettings:
        norms = self.schedule_norms
        return OptimizerSettings(
            name=self.optimizer,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warmup_steps=self.warmup_steps,
            schedule_norms=None if norms is None else tuple(norms),
            mechanic=self.mechanic,
        )

    def _make_rule(
        self, parameters: Sequence[torch.nn.Parameter], deviation: float, noise: NoiseSource
    ) -> StepRule:
        return make_optimizer(
            self._settings(),
            parameters,
            n_steps=self.n_steps,
            noise_standard_deviation=deviation,
            uniform=lambda: float(noise.uniform(1)[0]),
        )

    def _augmentation(self) -> Augmentation:
        chosen = self.augmentation
        if isinstance(chosen, str):
            known = Choice(tuple(AUGMENTATIONS))
            if not known.accepts(chosen):
                raise ValueError(
                    f"augmentation must be {known}, a callable or None, got {chosen!r}."
                )
            chosen = AUGMENTATIONS[chosen]
        return Augmentation(chosen, self.augmentation_multiplicity)

    def _device(self) -> torch.device:
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def _start(self, dtype: torch.dtype, noise: NoiseSource) -> torch.nn.Module:
        return start_module(
            self.module,
            input_shape=self.input_shape_,
            dtype=dtype,
            n_classes=len(self.classes_),
            vocabulary_size=self.vocabulary_size,
            seed=int(noise.uniform(1)[0] * 2**53),
            trainable=self.trainable,
            clipping=self.clipping,
            augmentation=self._augmentation(),
            device=self._device(),
        )

    def _check_size(self, module: torch.nn.Module) -> None:
        """Refuse, before any spend, gradients of single rows that do not fit into memory."""
        numbers = sum(p.numel() for p in module.parameters() if p.requires_grad)
        # Weights, gradients, noise and the optimizer's state; and, but for ghost clipping, a
        # gradient a row of a pass.
        copies = 8 + (0 if self.clipping == "ghost" else self.physical_batch_size)
        check_memory(
            4 * copies * numbers,
            f"gradients of {numbers} trained numbers, weights and noise",
            'Lower physical_batch_size, use clipping="ghost", train less, or state fewer classes.',
            self._device(),
        )

    def _try_rows(self, module: torch.nn.Module, rows: ModuleRows) -> None:
        """Put every row through once, where one may fail; networks by name take any floats."""
        augmentation = self._augmentation()
        by_name = isinstance(self.module, str) and rows.X.dtype != torch.int64
        if not by_name or augmentation.by_row:
            check_every_row(module, rows, augmentation, self._device(), self.physical_batch_size)

    def _open_checkpoint(self, start: torch.nn.Module, rows: ModuleRows) -> CheckpointPlan | None:
        if self.checkpoint is None:
            return None
        parameters = self.get_params(deep=False) | {"classes": self.classes_.tolist()}
        digest = run_digest(parameters, start, self.input_shape_)
        return CheckpointPlan(Path(self.checkpoint), self.checkpoint_every, digest, rows)

    def _state(
        self,
        mechanism: GradientMechanism,
        classes_in_cache: bool,
        gaps: list[str],
        *,
        grouped: bool,
    ) -> PrivacyStatement:
        """Put together what ran."""
        run = mechanism.run
        return run.statement(
            type(self).__name__,
            [
                *training_assumptions(
                    unit_of_privacy=run.unit_of_privacy,
                    grouped=grouped,
                    classes_stated=self.classes is not None,
                    classes_in_cache=classes_in_cache,
                    neighboring_relation=self.neighboring_relation,
                    n_samples_stated=self.n_samples is not None,
                    l2_clip_norm=float(self.l2_clip_norm),
                    input_bound=float(self.input_bound),
                    one_at_a_time=mechanism.passes.n_rows == 1,
                    checkpointed=self.checkpoint is not None,
                    own_module=not isinstance(self.module, str),
                    columns_named=hasattr(self, "feature_names_in_")
                    or hasattr(self, "_columns_in"),
                ),
                *gaps,
                *self._gaps(mechanism),
            ],
        )

    def _gaps(self, mechanism: GradientMechanism) -> list[str]:
        """What around the fit, of its delta and of its size a reader has to know."""
        plan, n_samples = mechanism.run.plan, float(mechanism.n_samples())
        sensitivity = 2.0 if self.neighboring_relation == "replace_one" else 1.0
        useful = (
            []
            if math.isinf(self.epsilon)
            else training_notes(plan, GRADIENT, n_samples, len(self.classes_), sensitivity)
        )
        return [*gaps_around_fit(), *delta_notes(plan, n_samples), *useful]

    # -- model file and scikit-learn -------------------------------------------------

    def save(self, path: Any) -> None:
        """Write the model to one safetensors file; `dpfc.load_model` reads it.

        Raises
        ------
        ModelFileError
            If the file cannot be written; no partial file is left.
        """
        check_is_fitted(self, "module_")
        write_model(Path(path), network_bytes(self))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = not math.isinf(self.epsilon)
        tags.non_deterministic = self.random_state is None and not math.isinf(self.epsilon)
        tags.input_tags.two_d_array = False
        return tags
