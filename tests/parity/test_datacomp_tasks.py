"""The task table equals what DataComp's evaluation publishes (github.com/mlfoundations/datacomp)."""

import pytest

from prolip.evaluation.datacomp import read_tasks

# Key, images (associations of WinoGAViL), and the main metric where it is not the accuracy.
PUBLISHED = """
vtab/caltech101 6085 mean_per_class_recall
cifar10 10000
vtab/cifar100 10000
vtab/clevr_count_all 15000
vtab/clevr_closest_object_distance 15000
country211 21100
vtab/dtd 1880
vtab/eurosat 5400
fgvc_aircraft 3333 mean_per_class_recall
food101 25250
gtsrb 12630
imagenet1k 50000
imagenet_sketch 50889
imagenetv2 10000
imagenet-a 7500
imagenet-o 2000
imagenet-r 30000
vtab/kitti_closest_vehicle_distance 711
mnist 10000
objectnet 18574
vtab/flowers 6149 mean_per_class_recall
vtab/pets 3669 mean_per_class_recall
voc2007 14976
vtab/pcam 32768
renderedsst2 1821
vtab/resisc45 6300
cars 8041
stl10 8000
sun397 108754
vtab/svhn 26032
retrieval/flickr_1k_test_image_text_retrieval 1000 mean_recall@1
retrieval/mscoco_2014_5k_test_image_text_retrieval 5000 mean_recall@1
misc/winogavil 3563 jaccard_score_10-12
wilds/iwildcam 42791 F1-macro_all
wilds/camelyon17 85054
wilds/fmow 22108 acc_worst_region
fairness/dollar_street 3503 acc_top5_wg
fairness/geode 12488 acc_wg
fairness/fairface 10954 -
fairness/utkface 23703 -
"""
METRICS = {
    "": "accuracy",
    "mean_per_class_recall": "recall",
    "mean_recall@1": "retrieval",
    "jaccard_score_10-12": "associations",
    "F1-macro_all": "f1",
    "acc_worst_region": "worst_region",
    "acc_top5_wg": "worst_group_top5",
    "acc_wg": "worst_group",
    "-": "faces",
}
GROUPS = {"wilds/fmow": "region", "fairness/dollar_street": "income_ds", "fairness/geode": "region"}
"""What the worst one is of; in each set it is the first column of the metadata."""
COLUMNS = {
    "wilds/fmow": ["region", "year", "y"],
    "fairness/dollar_street": ["income_ds", "income_meta", "region"],
    "fairness/geode": ["region", "country"],
}
SHIFTS = {"ImageNet Sketch", "ImageNet v2", "ImageNet-A", "ImageNet-O", "ImageNet-R", "ObjectNet"}
VTAB = {
    "Caltech-101", "CIFAR-100", "CLEVR Counts", "CLEVR Distance", "Describable Textures", "EuroSAT",
    "KITTI Vehicle Distance", "Oxford Flowers-102", "Oxford-IIIT Pet", "PatchCamelyon", "RESISC45", "SVHN", "SUN397",
}  # fmt: skip
RETRIEVAL = {"Flickr", "MSCOCO", "WinoGAViL"}

LINES = [line.split() for line in PUBLISHED.strip().splitlines()]
TASKS = {task.key: task for task in read_tasks()}


def test_our_tasks_and_their_order_are_datacomps():
    assert list(TASKS) == [line[0] for line in LINES]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_each_task_has_datacomps_size_metric_and_folder(line):
    key, items, metric = [*line, ""][:3]
    task = TASKS[key]
    assert (task.items, task.metric) == (int(items), METRICS[metric])
    if task.metric not in {"retrieval", "associations"}:
        assert task.folders == (f"wds_{key.removeprefix('fairness/').replace('/', '-')}_test",)
    else:  # as the repositories on the hub are called, too
        assert key.split("/")[1] in task.folders
    assert task.group_column == (COLUMNS[key].index(GROUPS[key]) if key in GROUPS else None)


def test_averages_are_over_datacomps_tasks():
    def members(average):
        return {task.name for task in TASKS.values() if average in task.averages}

    assert members("imagenet") == {"ImageNet 1k"}
    assert members("shifts") == SHIFTS
    assert members("vtab") == VTAB
    assert members("retrieval") == RETRIEVAL
    everything = {task for task in TASKS.values() if task.metric != "faces"}
    assert members("all") == {task.name for task in everything}
    assert len(everything) == 38
