"""Phantom scans written as DICOM in the style of five vendors, with what lies around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from pipeline.core.grid import Grid
from pipeline.core.volume import Quantity
from pipeline.phantom import Scan

#: What nobody may ever find in anything written.
SECRETS = ("DOEPLANT", "ID4711PLANT", "19700102", "ACC99PLANT", "PLANTHOSPITAL", "<script>")
UNIT = 1.0 / 16.0
LPS = np.diag([-1.0, -1.0, 1.0])

#: Manufacturer; ImageType after the second part; series name. By quantity.
STYLES: dict[str, dict[Quantity, tuple[str, tuple[str, ...], str]]] = {
    "siemens": {
        Quantity.WATER: ("SIEMENS", ("M", "NORM", "DIXON", "WATER"), "t1_vibe_dixon_tra_W"),
        Quantity.FAT: ("SIEMENS", ("M", "NORM", "DIXON", "FAT"), "t1_vibe_dixon_tra_F"),
    },
    "ge": {
        Quantity.WATER: ("GE MEDICAL SYSTEMS", ("OTHER",), "WATER: Ax LAVA-Flex"),
        Quantity.FAT: ("GE MEDICAL SYSTEMS", ("OTHER",), "FAT: Ax LAVA-Flex"),
    },
    "philips": {
        Quantity.WATER: ("Philips Medical Systems", ("W", "W", "DERIVED"), "mDIXON_W"),
        Quantity.FAT: ("Philips Medical Systems", ("F", "F", "DERIVED"), "mDIXON_W"),
    },
    "canon": {
        Quantity.WATER: ("CANON_MEC", ("OTHER",), "WFS Water"),
        Quantity.FAT: ("CANON_MEC", ("OTHER",), "WFS Fat"),
    },
    "uih": {
        Quantity.WATER: ("UIH", ("M",), "gre_quick3d_wfi_W"),
        Quantity.FAT: ("UIH", ("M",), "gre_quick3d_wfi_F"),
    },
}


def write_vendor(folder: Path, style: str, stations: list[Scan], seed: int = 0) -> None:
    """All contrasts and stations in one folder, files named and ordered at random, with decoys."""
    rng = np.random.default_rng(seed)
    # Philips puts the contrasts of a station into one series.
    one_series = style == "philips"
    written = 0
    names = rng.permutation(10000)
    folder.mkdir(parents=True, exist_ok=True)
    for station in stations:
        uid = generate_uid()
        for quantity, (vendor, image_type, name) in STYLES[style].items():
            uid = uid if one_series else generate_uid()
            volume = station.images[quantity]
            for level in rng.permutation(volume.grid.shape[2]).tolist():
                data = slice_of(volume.grid, volume.data[:, :, level], level)
                data.SeriesInstanceUID, data.Manufacturer = uid, vendor
                data.ImageType = ["DERIVED", "PRIMARY", *image_type]
                data.SeriesDescription = name
                save(data, folder / f"{SECRETS[0]}{names[written]:05d}")
                written += 1
    decoys = ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, {"Modality": "SR"})
    for k, decoy in enumerate(decoys):
        data = slice_of(volume.grid, volume.data[:, :, 0], 0)
        data.SeriesInstanceUID, data.SeriesDescription = generate_uid(), SECRETS[5]
        data.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        for key, value in decoy.items():
            setattr(data, key, value)
        save(data, folder / f"decoy{k}")
    (folder / "DICOMDIR.txt").write_text(SECRETS[0])


def slice_of(grid: Grid, plane: np.ndarray, level: int) -> Dataset:
    """One slice as a DICOM image of a person with secrets."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid()
    data.PatientName, data.PatientID = f"{SECRETS[0]}^JANE{SECRETS[5]}", SECRETS[1]
    data.PatientBirthDate, data.AccessionNumber = SECRETS[2], SECRETS[3]
    data.InstitutionName, data.Modality = SECRETS[4], "MR"
    # Read, but never passed on as they are.
    data.ScanningSequence, data.InPlanePhaseEncodingDirection = SECRETS[0], SECRETS[4]
    data.SteadyStatePulseSequence, data.EchoPulseSequence = SECRETS[0], SECRETS[4]
    block = data.private_block(0x0019, "PLANT", create=True)
    block.add_new(0x10, "LO", SECRETS[1])
    axes = LPS @ grid.affine[:3, :3] / np.array(grid.voxel_sizes_mm)
    position = LPS @ grid.index_to_world([0, 0, level])
    data.ImagePositionPatient = [f"{v:.6f}" for v in position]
    data.ImageOrientationPatient = [f"{v:.9f}" for v in (*axes[:, 0], *axes[:, 1])]
    data.PixelSpacing = [grid.voxel_sizes_mm[1], grid.voxel_sizes_mm[0]]
    # Misleading on purpose: spacing is read from positions.
    data.SliceThickness = grid.voxel_sizes_mm[2] / 2
    data.Columns, data.Rows = plane.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.RescaleSlope, data.RescaleIntercept = UNIT, 0
    data.PixelData = np.rint(plane.T / UNIT).astype(np.uint16).tobytes()
    return data


def save(data: Dataset, path: Path) -> None:
    """Write a DICOM image."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    FileDataset(str(path), data, file_meta=meta, preamble=bytes(128)).save_as(
        path, enforce_file_format=True
    )
