"""The lists that ship with the package agree with their sources and with what is known of ImageNet."""

import hashlib

from modelsoups.data.imagenet import metadata


def test_class_names_and_templates_are_open_clips():
    import open_clip

    assert metadata.class_names() == list(open_clip.IMAGENET_CLASSNAMES)
    assert metadata.templates() == [t("{}") for t in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert len(metadata.templates()) == 80
    names = metadata.class_names()
    assert [i for i, name in enumerate(names) if names.count(name) > 1] == [657, 744, 836, 837]


def test_label_order_is_sorted_wnids():
    assert list(metadata.wnids()) == sorted(metadata.wnids())
    assert len(set(metadata.wnids())) == 1000
    assert (metadata.wnids()[0], metadata.wnids()[999]) == ("n01440764", "n15075141")


def test_validation_labels_have_the_checksum_that_tfds_records():
    text = "".join(f"{metadata.wnids()[label]}\n" for label in metadata.val_labels())
    assert hashlib.md5(text.encode()).hexdigest() == "eaa6788f6a51fca5fb184f235d0c4e62"


def test_real_has_the_labels_that_its_paper_counts():
    lists = metadata.real_labels()
    assert len(lists) == 50_000
    assert sum(map(bool, lists)) == metadata.SETS["real"].images
    assert sum(map(len, lists)) == 57_553
    agree = sum(label in labels for label, labels in zip(metadata.val_labels(), lists, strict=True) if labels)
    assert round(100 * agree / 46_837, 2) == 90.02
