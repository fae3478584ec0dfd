"""Opens an image-text-to-text checkpoint with only what pictures and texts need."""

import inspect
from typing import Any

import transformers
from transformers import (
    PROCESSOR_MAPPING,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from thinkdraw.errors import UserError
from thinkdraw.judges.loading import one_line, read_image_processor, read_model, read_tokenizer


def read_chat_model(path: str) -> tuple[Any, Any]:
    """Read a frozen chat model and its processor: fp32, on the CPU.

    The processor pads on the left, as generation needs it.
    Raises UserError for a checkpoint that is absent, damaged, of another kind, or has no chat template.
    """
    try:
        model_type = PreTrainedConfig.get_config_dict(path)[0].get("model_type", "none")
    except (OSError, ValueError):
        model_type = "none"  # read_model says what is wrong
    if model_type != "none" and model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise UserError(
            f"judge {path} has model_type={model_type}, which answers no questions about pictures in text. Give a chat "
            "model that sees pictures."
        )
    auto_class: Any = AutoModelForImageTextToText
    model = read_model(path, {model_type: auto_class})
    return model, read_processor(path, model.config)


def read_processor(path: str, config: PreTrainedConfig) -> ProcessorMixin:
    """Read the checkpoint's processor without its parts for videos and sound.

    Its image processor is the PIL one. `AutoProcessor` would need torchvision wherever a model can also read videos.
    """
    tokenizer = read_tokenizer(path)
    image_processor = read_image_processor(path, _PilImageProcessor)
    try:
        settings, _ = ProcessorMixin.get_processor_dict(path)
        processor_class = _processor_class(settings.get("processor_class"), config)
        parts = dict.fromkeys(processor_class.get_attributes())
        parts |= {"tokenizer": tokenizer, "image_processor": image_processor}
        accepted = inspect.signature(processor_class.__init__).parameters.keys() - parts.keys()
        settings = {name: value for name, value in settings.items() if name in accepted}
        settings["chat_template"] = settings.get("chat_template") or tokenizer.chat_template
        processor = type(processor_class.__name__, (_PartialProcessor, processor_class), {})(**parts, **settings)
    except (ImportError, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise UserError(
            f"judge {path}: its processor cannot be opened for pictures and text alone ({one_line(error)}). "
            "Serve the model and use the judge openai instead."
        ) from error
    if not processor.chat_template:
        raise UserError(f"judge {path} has no chat template. Put chat_template.jinja beside config.json.")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # any token would do: the mask hides padding
    return processor


class _PilImageProcessor:
    """`AutoImageProcessor` that never asks for torchvision."""

    @staticmethod
    def from_pretrained(path: str, **settings: Any) -> Any:
        return AutoImageProcessor.from_pretrained(path, backend="pil", **settings)


class _PartialProcessor(ProcessorMixin):
    """A processor that takes None for a part that is never used."""

    def check_argument_for_proper_class(self, argument_name: str, argument: object) -> object:
        return None if argument is None else super().check_argument_for_proper_class(argument_name, argument)


def _processor_class(name: str | None, config: PreTrainedConfig) -> type[ProcessorMixin]:
    if name is not None and hasattr(transformers, name):
        return getattr(transformers, name)
    processor_class: Any = PROCESSOR_MAPPING[type(config)]  # typed as a pair of classes, although it is one class
    return processor_class
