"""What the repositories of the catalog hold, as far as public pages show it.

Folders, names and sizes of LLaVA-OneVision-Data's `sharegpt4o`, ALLaVA-4V and its Chinese copy, Cambrian-10M, LVIS-
Instruct4V, LLaVA-Video-178K, egoschema and M4-Instruct-Data are copied from the hub's own listings (sizes rounded
there). Every other repository is given the layout of its format with one file of a made-up megabyte; no figure of
those means anything.
"""

from __future__ import annotations

from collections.abc import Iterable

from mvl_assets.config.catalog import SourceSpec
from mvl_assets.fetch.rules import get_source_format
from tests.fetch.hub_server import Repo

MB, GB = 10**6, 10**9
SHAREGPT4O = [285, 305, 297, 399, 460, 436, 400, 768, 900, 872, 606, 390, 331, 300]
LISTED: dict[str, dict[str, int]] = {
    "FreedomIntelligence/ALLaVA-4V": {
        "README.md": 13_400,
        "allava_laion/ALLaVA-Caption-LAION-4V.json": 732 * MB,
        "allava_laion/ALLaVA-Instruct-LAION-4V.json": 607 * MB,
        "allava_laion/image_chunks/images_9.zip": 14 * GB,
        "allava_text/Evol-Instruct-GPT4-Turbo-143K.json": 375 * MB,
        "allava_vflan/ALLaVA-Caption-VFLAN-4V.json": 230 * MB,
        "allava_vflan/ALLaVA-Instruct-VFLAN-4V.json": 238 * MB,
    },
    "FreedomIntelligence/ALLaVA-4V-Chinese": {
        "allava_laion/ALLaVA-Caption-LAION-4V_Chinese.json": 571 * MB,
        "allava_laion/ALLaVA-Instruct-LAION-4V_Chinese.json": 490 * MB,
        "allava_vflan/ALLaVA-Caption-VFLAN-4V_Chinese.json": 166 * MB,
        "allava_vflan/ALLaVA-Instruct-VFLAN-4V_Chinese.json": 160 * MB,
    },
    "X2FD/LVIS-Instruct4V": {".gitattributes": 2370, "lvis_instruct4v_222k.json": 359 * MB},
    "lmms-lab/egoschema": {
        "MC/test-00000-of-00001.parquet": 2_020_000,
        "Subset/test-00000-of-00001.parquet": 186_000,
        **{f"videos_chunked_0{n}.zip": 21_400 * MB for n in range(1, 5)},
        "videos_chunked_05.zip": 20_100 * MB,
    },
    "lmms-lab/LLaVA-Video-178K": {
        "0_30_s_academic_v0_1/0_30_s_academic_mc_v0_1_qa_processed.json": 10 * MB,
        "0_30_s_activitynetqa/0_30_s_activitynetqa_oe_qa_processed.json": 957_000,
        "0_30_s_activitynetqa/0_30_s_activitynetqa_videos_1.tar.gz": 927 * MB,
        "0_30_s_nextqa/0_30_s_nextqa_mc-00000-of-00001.parquet": 836_000,
        "0_30_s_nextqa/0_30_s_nextqa_mc_qa_processed.json": 3_980_000,
        "0_30_s_nextqa/0_30_s_nextqa_oe_qa_processed.json": 1_740_000,
        "0_30_s_nextqa/0_30_s_nextqa_videos_1.tar.gz": 2780 * MB,
        "30_60_s_perceptiontest/30_60_s_perceptiontest_mc_qa_processed.json": MB,
        "30_60_s_perceptiontest/30_60_s_perceptiontest_videos_1.tar.gz": GB,
        "0_30_s_youtube_v0_1/0_30_s_youtube_v0_1_videos_9.tar.gz": GB,
        "llava_hound/sharegptvideo_qa_255k_processed.json": MB,
    },
    "lmms-lab/M4-Instruct-Data": {
        "README.md": 5000,
        "data-statistics.png": 416_000,
        "dreamsim_split.z01": 40 * GB,
        "dreamsim_split.zip": 10 * GB,
        "m4_instruct_annotations.json": 1_010 * MB,
        "m4_instruct_video.json": 100 * MB,
        "nlvr2.zip": 11 * GB,
        # The sizes of these were not seen.
        "FlintstonesSV.zip": MB,
        "HQ-Edit.zip": MB,
        "PororoSV.zip": MB,
        "RAVEN_train_images.zip": MB,
        "VIST.zip": MB,
        "coinstruct.zip": MB,
        "contrastive_caption.zip": MB,
        "iconqa.zip": MB,
    },
    "nyu-visionx/Cambrian-10M": {
        ".git.tar.gz": 4_010 * MB,
        "data_engine/partII.tar.gz_part_aa": 10_700 * MB,
        "jsons/Cambrian10M.jsonl": 9_120 * MB,
        "jsons/Cambrian7M.jsonl": 7_200 * MB,
        "jsons/gpt4v_77k.jsonl": 43_200_000,
        "idk.tar.gz": 1_710 * MB,
        "lnqa.tar.gz": 31_300 * MB,
        "pathvqa.tar.gz": 2_380 * MB,
    },
}


def repositories(sources: Iterable[SourceSpec]) -> dict[str, Repo]:
    """A repository for every id of the catalog, each holding what its sources name."""
    result = {name: Repo(sizes=dict(sizes)) for name, sizes in LISTED.items()}
    for source in sources:
        if source.hub is None:
            continue
        name, config = source.hub.repo, source.hub.config
        repo = result.setdefault(name, Repo(sizes={"README.md": 1000, ".gitattributes": 2000}))
        if config == "sharegpt4o":
            repo.sizes |= {f"{config}/train-{n:05}-of-00014.parquet": s * MB for n, s in enumerate(SHAREGPT4O)}
        elif config is not None and name not in LISTED:
            ending = get_source_format(source).row_files[0].removeprefix("*")
            repo.sizes[f"{config}/train-00000-of-00001{ending}"] = MB
        elif name == "BAAI/SVIT":
            repo.sizes |= {"SVIT_core_150K.json": MB, "SVIT_mix_665K.json": MB, "SVIT.zip": MB}
        elif name not in LISTED:
            repo.sizes["data" + get_source_format(source).row_files[-1].removeprefix("*")] = MB
    return result
