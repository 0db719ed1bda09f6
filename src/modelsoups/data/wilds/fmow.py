"""The images of FMoW-WILDS v1.1: satellite images of 62 kinds of land use, split by year, grouped by region.

Labels, splits, regions and file names are those of wilds/datasets/fmow_dataset.py in
https://github.com/p-lambda/wilds (split scheme "official", that is time_after_2016). Numbers of images: Koh et al.
2021, appendix on FMoW-WILDS; 22,108 also in tasklist.yml of https://github.com/mlfoundations/datacomp. Class names
and prompts follow src/templates/fmow_template.py of https://github.com/mlfoundations/wise-ft, by some of the authors
of model soups, with spaces for underscores and without its prompts that choose "a" or "an".
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from modelsoups.data.wilds import tables
from modelsoups.data.wilds.spec import Entry, Spec

CATEGORIES = (  # the official order of labels
    *("airport", "airport_hangar", "airport_terminal", "amusement_park", "aquaculture", "archaeological_site", "barn"),
    *("border_checkpoint", "burial_site", "car_dealership", "construction_site", "crop_field", "dam"),
    *("debris_or_rubble", "educational_institution", "electric_substation", "factory_or_powerplant", "fire_station"),
    *("flooded_road", "fountain", "gas_station", "golf_course", "ground_transportation_station", "helipad", "hospital"),
    *("impoverished_settlement", "interchange", "lake_or_pond", "lighthouse", "military_facility"),
    *("multi-unit_residential", "nuclear_powerplant", "office_building", "oil_or_gas_facility", "park"),
    *("parking_lot_or_garage", "place_of_worship", "police_station", "port", "prison", "race_track"),
    *("railway_bridge", "recreational_facility", "road_bridge", "runway", "shipyard", "shopping_mall"),
    *("single-unit_residential", "smokestack", "solar_farm", "space_facility", "stadium", "storage_tank"),
    *("surface_mine", "swimming_pool", "toll_booth", "tower", "tunnel_opening", "waste_disposal"),
    *("water_treatment_facility", "wind_farm", "zoo"),
)
LABELS = {category: label for label, category in enumerate(CATEGORIES)}
REGIONS = ("Africa", "Americas", "Asia", "Europe", "Oceania")
OTHER = "Other"  # no region; the official evaluation leaves it out
TEST_FROM, VAL_FROM = datetime(2016, 1, 1, tzinfo=UTC), datetime(2013, 1, 1, tzinfo=UTC)
SPLITS = ("train", "val", "test", "seq")  # in the table; seq is sequestered, and its images are not used
COLUMNS = ("split", "category", "country_code", "timestamp")
METADATA, COUNTRIES = "rgb_metadata.csv", "country_code_mapping.csv"
IN = ("", " in asia", " in africa", " in the americas", " in europe", " in oceania")


def classes(folder: Path) -> list[str]:
    """Return the class names, by label."""
    return [category.replace("_", " ") for category in CATEGORIES]


def entries(folder: Path) -> Iterator[Entry]:
    """Yield the rows of the table, with the names of their images, which count the rows."""
    regions = _regions(folder / COUNTRIES)
    for row in tables.rows(folder / METADATA, COLUMNS):
        category = row.values["category"]
        if category not in LABELS:
            raise ValueError(f"{row.where}: {category[:40]!r} is none of FMoW's 62 categories; restore the file")
        region = regions.get(row.values["country_code"], OTHER)
        group = REGIONS.index(region) if region != OTHER else -1
        yield Entry(_split(row), f"rgb_img_{row.number}.png", LABELS[category], group, row.line)


def _split(row: tables.Row) -> str | None:
    """Return the official split of a row, or None if its images are in none."""
    given, stamp = row.values["split"], row.values["timestamp"]
    if given not in SPLITS:
        raise ValueError(f"{row.where}: split is {given[:30]!r}, expected one of {', '.join(SPLITS)}")
    try:
        taken = datetime.fromisoformat(stamp)
    except ValueError as error:
        raise ValueError(f"{row.where}: timestamp {stamp[:40]!r} is not a date and time; restore the file") from error
    taken = taken if taken.tzinfo else taken.replace(tzinfo=UTC)
    if taken >= TEST_FROM:
        return "test" if given == "test" else None
    if taken >= VAL_FROM:
        return "val" if given == "val" else None
    return {"train": "train", "val": "id_val", "test": "id_test", "seq": None}[given]


def _regions(path: Path) -> dict[str, str]:
    """Return the region of each country, by its code of three letters."""
    found = {}
    for row in tables.rows(path, ("alpha-3", "region")):
        region = row.values["region"] or OTHER
        if region not in (*REGIONS, OTHER):
            raise ValueError(f"{row.where}: region is {region[:30]!r}, expected one of {', '.join(REGIONS)}")
        found[row.values["alpha-3"]] = region
    return found


FMOW = Spec(
    key="fmow",
    title="FMoW",
    folders=("fmow_v1.1", "fmow"),
    tables=(METADATA, COUNTRIES),
    images="images",
    counts={"train": 76_863, "id_val": 11_483, "val": 19_915, "id_test": 11_327, "test": 22_108},
    templates=(
        *(f"{kind} photo of a {{}}{where}." for where in IN for kind in ("satellite", "aerial")),
        *("a photo of a {}.", "{}."),
    ),
    groups=REGIONS,
    classes=classes,
    entries=entries,
)
