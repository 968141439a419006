"""How long whole legs take to load and to bring onto the canonical grid, and how much memory.

    python -m benchmarks.loading OUT

One volume of 320 x 260 x 360 voxels that shows both legs, two channels: as NIfTI (two files) and
as DICOM (720 slices). Each is loaded in a process of its own, whose largest memory is read.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from benchmarks.common import Report, command_line
from pipeline import Grid, Quantity, Volume, canonicalise, default_config, load_subject
from pipeline.core.scan import SCANNER_SPACE
from pipeline.io.nifti import write_volume

SHAPE = (320, 260, 360)
VOXEL_MM = (1.2, 1.2, 3.0)
#: Seconds and bytes promised for NIfTI and DICOM.
NIFTI_S, DICOM_S, MEMORY_GIB = 10.0, 20.0, 2.0


def whole_legs() -> dict[Quantity, Volume]:
    """Two tapering cylinders of muscle under fat, with noise: what compresses as images do."""
    grid = Grid(SHAPE, np.diag([*VOXEL_MM, 1.0]), SCANNER_SPACE)
    rng = np.random.default_rng(0)
    x, y = np.ogrid[: SHAPE[0], : SHAPE[1]]
    water = np.empty(SHAPE, dtype=np.float32)
    fat = np.empty(SHAPE, dtype=np.float32)
    for level in range(SHAPE[2]):
        radius = 35.0 + 35.0 * level / SHAPE[2]
        away = np.minimum(np.hypot(x - 80, y - 130), np.hypot(x - 239, y - 130))
        muscle, leg = (away < radius) & (away > 10), away < radius + 8
        for out, signal in (
            (water, np.where(muscle, 900, 0)),
            (fat, np.where(leg ^ muscle, 800, 0)),
        ):
            noise = rng.normal(0.0, 15.0, (2, *SHAPE[:2]))
            out[:, :, level] = np.rint(np.hypot(signal + noise[0], noise[1]))
    return {q: Volume(d, grid, q) for q, d in ((Quantity.WATER, water), (Quantity.FAT, fat))}


def write_nifti(folder: Path, images: dict[Quantity, Volume]) -> None:
    """One .nii.gz per channel."""
    folder.mkdir(parents=True)
    for quantity, volume in images.items():
        write_volume(folder / f"x_{quantity}.nii.gz", volume, dtype=np.int16)


def write_dicom(folder: Path, images: dict[Quantity, Volume]) -> None:
    """One file per slice and channel, named at random."""
    folder.mkdir(parents=True)
    names = iter(np.random.default_rng(1).permutation(len(images) * SHAPE[2]).tolist())
    for quantity, volume in images.items():
        series = generate_uid()
        for level in range(SHAPE[2]):
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID = MRImageStorage
            meta.MediaStorageSOPInstanceUID = generate_uid()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            path = folder / f"{next(names):04d}"
            data = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
            data.SOPClassUID = MRImageStorage
            data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
            data.Modality, data.SeriesInstanceUID = "MR", series
            data.ImageType = ["DERIVED", "PRIMARY", "DIXON", str(quantity).upper()]
            data.Columns, data.Rows = SHAPE[:2]
            data.PixelSpacing = [VOXEL_MM[1], VOXEL_MM[0]]
            data.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]
            data.ImagePositionPatient = [0, 0, level * VOXEL_MM[2]]
            data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
            data.BitsAllocated = data.BitsStored = 16
            data.HighBit, data.PixelRepresentation = 15, 0
            data.PixelData = volume.data[:, :, level].T.astype(np.uint16).tobytes()
            data.save_as(path, enforce_file_format=True)


def load(data: Path, answer: Connection) -> None:
    """Load and canonicalise: seconds of each, of the processor, and the largest memory in GiB."""
    config = default_config()
    start, cpu = time.perf_counter(), time.process_time()
    subject = load_subject(data, "01", config=config.load).value
    loaded = time.perf_counter()
    canonicalise(subject, config=config.canonicalise)
    end = time.perf_counter()
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    answer.send((loaded - start, end - loaded, time.process_time() - cpu, peak))


def run(options: argparse.Namespace) -> Report:
    """Write both, load both."""
    del options
    report = Report()
    context = multiprocessing.get_context("spawn")
    images = whole_legs()
    for name, write, limit_s in (("NIfTI", write_nifti, NIFTI_S), ("DICOM", write_dicom, DICOM_S)):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / "sub-01", images)
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(target=load, args=(Path(folder), theirs))
            child.start()
            load_s, canonicalise_s, cpu_s, peak_gib = ours.recv()
            child.join()
        row = {"load_s": load_s, "canonicalise_s": canonicalise_s, "cpu_s": cpu_s, "gib": peak_gib}
        report.add("loading", of=name, **row)
        report.at_most(f"{name}: seconds", load_s + canonicalise_s, limit_s)
        report.at_most(f"{name}: GiB", peak_gib, MEMORY_GIB)
    return report


if __name__ == "__main__":
    raise SystemExit(command_line("loading", __doc__ or "", run))
