"""Small random models in the layouts of published ones, for names, shapes and values, not quality."""

from pathlib import Path

from tests.evaluation.metrics.encoders.drawn_weights import drawn


def save_classifier(folder: Path, labels: list[str]) -> str:
    """Writes the model and its feature extractor and returns the path as a configuration names it."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=16,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)  # type: ignore[no-untyped-call]
    return str(folder)


def save_age_gender(folder: Path, without: str = "") -> str:
    """A small wav2vec2 with audeering's heads for age and gender on drawn weights, in the layout of their files.

    Args:
        without: tensors whose names begin so are left out.
    """
    import json

    from safetensors.torch import save_file
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
    )
    shapes = {f"wav2vec2.{name}": tuple(value.shape) for name, value in Wav2Vec2Model(config).state_dict().items()}
    for head, outputs in (("age", 1), ("gender", 3)):
        shapes |= {f"{head}.dense.weight": (32, 32), f"{head}.dense.bias": (32,)}
        shapes |= {f"{head}.out_proj.weight": (outputs, 32), f"{head}.out_proj.bias": (outputs,)}
    state = {name: value for name, value in drawn(shapes).items() if not without or not name.startswith(without)}
    folder.mkdir(parents=True)
    # Files of their time have weight norm's two tensors by these names.
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    named = {}
    for name, value in state.items():
        for new_part, old_part in old.items():
            name = name.replace(new_part, old_part)
        named[name] = value.contiguous()
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    values = config.to_dict() | {"architectures": ["AgeGenderModel"]}
    (folder / "config.json").write_text(json.dumps(values, default=str))
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)  # type: ignore[no-untyped-call]
    return str(folder)


EMOTION2VEC_TOKENS = [
    "生气/angry",
    "厌恶/disgusted",
    "恐惧/fearful",
    "开心/happy",
    "中立/neutral",
    "其他/other",
    "难过/sad",
    "吃惊/surprised",
    "<unk>",
]


def save_emotion2vec(folder: Path, *, heads: int = 12, depth: int = 2, prenet: int = 2, per_head: bool = True) -> str:
    """A small emotion2vec+ on drawn weights, in FunASR's layout and with what only training has."""
    import torch
    import yaml

    from annotation.voice.emotion2vec import Emotion2vecNetwork, Emotion2vecSize

    audio = {
        "feature_encoder_spec": "[(32, 10, 5)] + [(32, 3, 2)] * 4 + [(32,2,2)] + [(32,2,2)]",
        "extractor_mode": "layer_norm",
        "conv_pos_width": 95,
        "conv_pos_groups": 16,
        "conv_pos_depth": 5,
        "prenet_depth": prenet,
        "num_extra_tokens": 10,
        "use_alibi_encoder": True,
        "learned_alibi_scale_per_head": per_head,
        "mask_prob": 0.5,
    }
    size = {"embed_dim": 48, "depth": depth, "num_heads": heads, "mlp_ratio": 4.0, "norm_eps": 1e-5}
    conf = size | {"layer_norm_first": False, "normalize": True, "modalities": {"audio": audio}}
    network = Emotion2vecNetwork(Emotion2vecSize.model_validate(conf), len(EMOTION2VEC_TOKENS))
    state = drawn({name: tuple(value.shape) for name, value in network.state_dict().items()})
    state["modality_encoders.AUDIO.decoder.proj.weight"] = torch.zeros(4, 4)
    folder.mkdir(parents=True)
    torch.save({"model": state}, folder / "model.pt")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": "Emotion2vec", "model_conf": conf}))
    (folder / "tokens.txt").write_text("\n".join(EMOTION2VEC_TOKENS) + "\n", encoding="utf-8")
    return str(folder)
