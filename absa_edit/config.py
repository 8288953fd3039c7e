"""Typed settings of a run: what each key means, its unit, and which values make no sense together.

YAML under `conf/` holds values, these classes hold types; `compose.py` makes Hydra check every key against them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from omegaconf import MISSING

from absa_edit.errors import SettingsError
from absa_edit.records import Part, Role

NO_RESULT = ("data.path", "model.device", "model.device_map", "trace.batch_tokens")
"""Settings of a group that change no result, but for rounding: runs that differ in them alone are the same run."""


class Leaks(StrEnum):
    """What to do with test rows whose (sentence, aspect) is in the training file."""

    drop = "drop"
    keep = "keep"
    error = "error"


class Corruption(StrEnum):
    noise = "noise"
    counterfactual = "counterfactual"
    mean = "mean"


class Engine(StrEnum):
    """How the effect of a restoration is found."""

    exact = "exact"
    """Every restoration is run."""
    attribution = "attribution"
    """All are estimated to first order from a few backward passes."""
    auto = "auto"
    """All are estimated, and those that can decide a plan are run."""


class Dtype(StrEnum):
    """What the matrix products of a trace are computed in."""

    float32 = "float32"
    """The model's own dtype: nothing is rounded."""
    bfloat16 = "bfloat16"
    """Faster where the machine has bfloat16 units, and an approximation: single effects move in the third digit."""


class Tokens(StrEnum):
    """Which tokens the noise falls on."""

    aspect = "aspect"
    """The aspect, in the sentence and in the question."""
    context = "context"
    """The sentence without the aspect: where the opinion is."""
    sentence = "sentence"
    all = "all"
    """Every token, as in the AAAI-25 paper."""


class Localiser(StrEnum):
    trace = "trace"
    random = "random"
    all = "all"
    manual = "manual"
    file = "file"
    """Read `locate.plan`."""


class Shape(StrEnum):
    window = "window"
    """One run of neighbouring layers, all parts in it."""
    sites = "sites"
    """The strongest sites anywhere."""


class Precision(StrEnum):
    float32 = "float32"
    bf16 = "bf16"


class Tracker(StrEnum):
    wandb = "wandb"
    none = "none"


class Stage(StrEnum):
    trace = "trace"
    locate = "locate"
    methods = "methods"
    export = "export"
    report = "report"


@dataclass
class DataSettings:
    """Which data to train and test on."""

    name: str = MISSING
    """A public set (laptop14, restaurant14, mams, me_absc_device, ...), a bundled `<domain>-sample`, or
    any name of your own together with `train` and `test`."""
    path: str | None = None
    """Folder with the public files; else $ABSA_EDIT_DATA, `data/`, the hub, in this order."""
    train: str | None = None
    """Your own training file (.xml, .json, .jsonl, .csv, .parquet, .seg); with it `name` is only a name."""
    test: str | None = None
    """Your own test file."""
    domain: str | None = None
    """Word for the kind of product, for your own files."""
    tests: list[str] = field(default_factory=list)
    """Sets to score besides the own test split; those that cannot be found are left out and named."""
    strict: bool = False
    """Stop, rather than use the bundled sample, when `name` is nowhere to be found."""
    leaks: Leaks = Leaks.drop
    dev_share: float = 0.1
    """Share of training sentences held out for early stopping, 0 to 0.5."""
    split_seed: int = 0
    """Draws the development sentences and the limits; apart from `seed`, so that seeds share their data."""
    limit_train: int | None = None
    """Use at most this many training examples (whole sentences, seeded); None uses all."""
    limit_test: int | None = None
    """Use at most this many test examples a set."""

    def __post_init__(self) -> None:
        if not 0 < self.dev_share <= 0.5:
            raise SettingsError(f"data.dev_share={self.dev_share}: expected a share in (0, 0.5]")
        if bool(self.train) != bool(self.test):
            raise SettingsError("data.train and data.test go together: give both files or neither")


@dataclass
class ModelSettings:
    """The language model to trace and edit."""

    name: str = MISSING
    """`reviewlm` (bundled), a hub id, or a folder."""
    revision: str | None = None
    dtype: str = "float32"
    """float32, bfloat16 or float16: the dtype that weights are loaded in."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto: cuda where there is one, else cpu."""
    device_map: str | None = None
    """Passed to transformers (e.g. `auto`); leaves `device` unused."""
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise SettingsError(f"model.dtype={self.dtype}: expected float32, bfloat16 or float16")


@dataclass
class PromptSettings:
    """How an example becomes text, and which words answer it."""

    template: str = "Given the sentence: '{sentence}', what is the sentiment polarity of the aspect term {aspect} ?"
    """With `{sentence}` once and `{aspect}` at least once after it. Source: arXiv 2503.15117, official code."""
    labels: list[str] = field(default_factory=lambda: ["positive", "negative", "neutral"])
    """The words for positive, negative, neutral, in this order."""
    separator: str = " "
    """Between prompt and label word; a space makes each label one token in most vocabularies."""
    chat: bool = False
    """Wrap the prompt as a user turn in the tokenizer's chat template."""
    max_tokens: int = 512
    """A prompt longer than this is an error."""

    def __post_init__(self) -> None:
        if self.template.count("{sentence}") != 1 or "{aspect}" not in self.template:
            raise SettingsError(
                f"prompt.template={self.template!r}: expected {{sentence}} once and {{aspect}} at least once"
            )
        if self.template.index("{aspect}") < self.template.index("{sentence}"):
            raise SettingsError("prompt.template: {aspect} must stand after {sentence}")
        if len(self.labels) != 3 or len(set(self.labels)) != 3:
            raise SettingsError(f"prompt.labels={self.labels}: expected three different words")


@dataclass
class TraceSettings:
    """Causal tracing: what is corrupted, what is restored, on how many examples."""

    engine: Engine = Engine.exact
    examples: int = 100
    """Training examples looked at (seeded draw); the filter keeps some of them."""
    samples: int = 3
    """Noise samples an example, the same ones for every restored site; estimates are made of the first `steps`."""
    noise: float = 3.0
    """Standard deviation of the noise in standard deviations of the token embeddings."""
    corruption: Corruption = Corruption.noise
    tokens: Tokens = Tokens.sentence
    parts: list[Part] = field(default_factory=lambda: [Part.block, Part.attn, Part.mlp])
    roles: list[Role] = field(default_factory=lambda: [r for r in Role if r is not Role.instruction])
    filter: bool = True
    """Keep only examples that the clean run gets right and the corrupted run wrong, as the paper does."""
    window: int = 3
    """Neighbouring layers restored together for attn and mlp (block restores one layer)."""
    dtype: Dtype | None = None
    """Of the matrix products inside the blocks (on a CPU not of attention's own); the residual stream, norms and
    softmax keep the model's dtype. By itself float32, the model's own, for what is run exactly; for estimates, which
    err by far more than that rounds, bfloat16 where the device has units for it and the weights are float32. The cells
    that `auto` runs keep the model's in any case."""
    batch_tokens: int = 16384
    """Most hidden states (rows x tokens) in one batch; bounds memory, and changes no more than rounding: a trace that
    was stopped goes on with another."""
    steps: int = 3
    """Gradients an example of attribution: at points between corrupted and clean input, dealt out to the samples. With
    more samples than these, `auto` judges by the first ones which examples pass the filter."""
    checked: int = 10
    """Kept examples that attribution is compared with the exact engine on."""
    grids: int = 0
    """Kept examples to trace token by token too, for a picture of each; one costs about as much as five examples."""

    def __post_init__(self) -> None:
        for key in ("examples", "samples", "window", "batch_tokens", "steps", "checked"):
            if getattr(self, key) < 1:
                raise SettingsError(f"trace.{key}={getattr(self, key)}: expected at least 1")
        if self.grids < 0 or self.noise < 0 or not {*self.parts} - {Part.head} or not self.roles:
            raise SettingsError(
                "trace: expected noise and grids of 0 or more, at least one role, and in parts at least one of block, "
                "attn, mlp (head is traced beside them)"
            )


@dataclass
class LocateSettings:
    """Where the edit goes."""

    kind: Localiser = Localiser.trace
    layers: list[int] = field(default_factory=list)
    """For `manual`: the layers to edit, counted from 0."""
    parts: list[Part] = field(default_factory=lambda: [Part.attn, Part.mlp])
    """Component outputs to edit in the chosen layers: attn is `o_proj`, mlp is `down_proj`; or `[head]`, single heads:
    each its columns of `o_proj`. `manual` and `all` take every head of their layers; a plan file names any."""
    width: int | None = None
    """Layers in the window; None is a third of the model's."""
    rank: int = 4
    """Of the delta of each site."""
    shape: Shape = Shape.window
    sites: int | None = None
    """How many, for `shape=sites` by trace or random; None is as many as a window holds. Heads need a number."""
    plan: str | None = None
    """A `plan.json` to use as it is (`kind=file`)."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise SettingsError(f"locate.rank={self.rank}: expected at least 1")
        if not self.parts or (set(self.parts) - {Part.attn, Part.mlp} and self.parts != [Part.head]):
            raise SettingsError("locate.parts: expected attn, mlp or both, or head alone")
        chosen = self.kind in (Localiser.trace, Localiser.random)
        if self.parts == [Part.head] and chosen and self.sites is None:
            raise SettingsError("locate.parts=[head]: say how many, e.g. locate.shape=sites locate.sites=16")
        if self.sites is not None and not (chosen and self.shape is Shape.sites and self.width is None):
            raise SettingsError(
                f"locate.sites={self.sites} goes with locate.shape=sites and locate=trace or random, and without "
                "locate.width"
            )
        if self.sites is not None and self.sites < 1:
            raise SettingsError(f"locate.sites={self.sites}: expected at least 1")
        if (self.kind is Localiser.manual) != bool(self.layers):
            raise SettingsError(
                f"locate.layers={self.layers} with locate={self.kind.value}: layers go with locate=manual, "
                "e.g. locate=manual locate.layers=[4,5]"
            )
        if (self.kind is Localiser.file) != bool(self.plan):
            raise SettingsError("locate.plan goes with locate=file, e.g. locate=file locate.plan=plan.json")

    def by(self, kind: Localiser) -> LocateSettings:
        """The same choice by another localiser, one that needs neither layers nor a file."""
        sites = None if kind is Localiser.all else self.sites
        return replace(self, kind=kind, layers=[], plan=None, sites=sites)


@dataclass
class Method:
    """What every method has: how fast it learns."""

    lr: float = MISSING
    """Peak learning rate of AdamW."""

    def __post_init__(self) -> None:
        if not 0 <= self.lr < 1:
            raise SettingsError(f"lr={self.lr}: expected a learning rate from 0 to 1")
        if not 0 <= getattr(self, "dropout", 0.0) < 1:
            raise SettingsError("dropout: expected a share from 0 to 1")
        if getattr(self, "rank", 1) < 1:
            raise SettingsError("rank: expected at least 1")
        if getattr(self, "locate", None) in (Localiser.manual, Localiser.file):
            raise SettingsError(
                "method.<name>.locate: expected trace, random or all; for your own layers use locate=manual"
            )


@dataclass
class ZeroShot(Method):
    """The base model as it is."""

    lr: float = 0.0


@dataclass
class Edit(Method):
    """Rank-limited deltas on the located component outputs."""

    locate: Localiser | None = None
    """A localiser of its own for this method (the `random` control); None follows `locate`."""
    alpha: float = 8.0
    """The delta is scaled by alpha / rank, the same at every site."""
    dropout: float = 0.0
    weights: bool = True
    """Train the deltas; false leaves the representation edit alone."""
    representation: bool = False
    """Add LoReFT on the residual stream of the located layers, at `position`."""
    representation_rank: int = 4
    representation_lr: float = 2e-3
    position: Role = Role.aspect_again
    """The last token with this role is edited. Source: arXiv 2503.15117, official code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.weights or self.representation):
            raise SettingsError("method: an edit with weights=false and representation=false trains nothing")


@dataclass
class Delta(Method):
    """The located weight matrices, trained in full."""

    locate: Localiser | None = None


@dataclass
class Lora(Method):
    """PEFT LoRA on all linear layers of all blocks."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0


@dataclass
class Full(Method):
    """Every weight."""


METHODS: dict[str, type[Method]] = {
    "zero_shot": ZeroShot,
    "edit": Edit,
    "random": Edit,
    "delta": Delta,
    "lora": Lora,
    "full": Full,
}


@dataclass
class FitSettings:
    """Training, the same for every method."""

    epochs: int = 3
    batch_size: int = 16
    """Examples an optimiser step."""
    warmup: float = 0.1
    """Share of the steps that the learning rate rises over; then it falls linearly to 0."""
    weight_decay: float = 0.0
    clip: float = 1.0
    """Largest gradient norm."""
    patience: int = 2
    """Epochs without a better development macro-F1 before stopping."""
    precision: Precision | None = None
    """Of the training's matrix products (autocast; on a CPU not of attention's own); scoring always runs in the model's
    own dtype. By itself bf16 where the device has units for it (a GPU; AVX-512 with bf16 or AMX in a CPU) or the
    model's weights are halves, else float32."""
    cache_gib: float = 4.0
    """Most memory for the hidden states that the plan leaves frozen; beyond it they are memory-mapped."""

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "patience"):
            if getattr(self, key) < 1:
                raise SettingsError(f"fit.{key}={getattr(self, key)}: expected at least 1")
        if not 0 <= self.warmup <= 1 or self.clip <= 0:
            raise SettingsError("fit: expected warmup from 0 to 1 and clip above 0")


@dataclass
class ScoreSettings:
    """How predictions are made and what is said of them."""

    batch_tokens: int = 4096
    """Tokens (padding included) in one scoring batch."""
    resamples: int = 2000
    """Bootstrap and permutation draws."""

    def __post_init__(self) -> None:
        if self.resamples < 1 or self.batch_tokens < 1:
            raise SettingsError("score: expected resamples and batch_tokens of at least 1")


@dataclass
class ExportSettings:
    """What is left to take away."""

    method: str | None = None
    """The method to export; None is `edit` where it was run, else the last trained one."""
    merged: bool = True
    """Write the merged checkpoint too."""


@dataclass
class TrackSettings:
    """Where curves and tables go besides the run folder."""

    kind: Tracker = Tracker.wandb
    project: str = "absa_edit"
    entity: str | None = None


@dataclass
class Settings:
    """Everything a run depends on."""

    name: str = MISSING
    """Experiment name, first part of the output folder; set by the experiment file."""
    seed: int = 0
    output: str = "outputs"
    stages: list[Stage] = field(default_factory=lambda: list(Stage))
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    prompt: PromptSettings = field(default_factory=PromptSettings)
    trace: TraceSettings = field(default_factory=TraceSettings)
    locate: LocateSettings = field(default_factory=LocateSettings)
    method: dict[str, Method] = field(default_factory=dict)
    """Methods to run, by name; each option of the group `method` adds one."""
    fit: FitSettings = field(default_factory=FitSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    track: TrackSettings = field(default_factory=TrackSettings)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise SettingsError(f"seed={self.seed}: expected 0 or more")
        if not self.stages:
            raise SettingsError(f"stages=[]: expected at least one of {', '.join(Stage)}")
        if Stage.export in self.stages and Stage.methods not in self.stages:
            raise SettingsError("stages: export needs methods beside it; those trained before are found, not trained")
        if Stage.report in self.stages and not {Stage.trace, Stage.methods} & set(self.stages):
            raise SettingsError(
                "stages: report needs trace or methods beside it, whose results it shows; what was done before is found"
            )
        kinds = {located.kind for located in self.localisers()}
        if {Stage.trace, Stage.locate} <= set(self.stages) and Localiser.trace in kinds:
            missing = [part.value for part in self.locate.parts if part not in self.trace.parts]
            if missing:
                raise SettingsError(
                    f"locate.parts has {missing[0]}, which is not traced: add it to trace.parts, or take it off"
                )
            if self.locate.parts == [Part.head] and self.trace.engine is Engine.auto:
                raise SettingsError(
                    "locate.parts=[head]: trace.engine=auto runs no head exactly; take exact or attribution"
                )

    def localisers(self) -> list[LocateSettings]:
        """What the plans of this run come from; a method's own `random` follows the run's plan.

        Raises `SettingsError` for a method's own localiser that does not go with `locate.*`.
        """
        own = {kind for method in self.method.values() if (kind := getattr(method, "locate", None))}
        return [self.locate, *(self.locate.by(kind) for kind in sorted(own - {Localiser.random}))]
