"""Every dataset that axond has something to do with: what it is, whose it is, and where it can be had."""

from dataclasses import dataclass

from models.datasets.public import esc10, fsdd, nmnist, ring, wakewords
from models.datasets.public.home import Home

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Known:
    """One dataset."""

    name: str
    what: str
    licence: str
    credit: str
    origin: str
    """Where the original is, in words."""
    home: Home | None = None
    why_not: str = ""
    """Without a home: why there is no exact public copy."""


KNOWN = (
    Known(
        "audio_fsdd",
        "spoken digits, microphone, 8 kHz",
        "CC BY-SA 4.0",
        "Zohar Jackson et al., Free Spoken Digit Dataset",
        "GitHub Jakobovski/free-spoken-digit-dataset, recordings/",
        Home(
            "Jakobovski/free-spoken-digit-dataset",
            "26eb9aaf76e81b692f806f9140c2d2777410d7a1",
            fsdd,
            "7243468937c0c3d240fc3357a3db048aa506bdedfe4761e8499b9e3409329142",
            "Recordings 0 and 1 of each digit and the speaker theo are held out. Files unchanged, in one archive per "
            "speaker. Split: train is index 5 to 49, test is 2 to 4.",
            archive_about_bytes=15 * MB,
            archive_most_bytes=200 * MB,
            unpacked_most_bytes=500 * MB,
        ),
    ),
    Known(
        "audio_esc10",
        "ten sounds of ESC-10, 1 s, 16 kHz",
        "CC BY; none stated for the cutting",
        "K. J. Piczak, ESC: Dataset for Environmental Sound Classification, ACM MM 2015, and the Freesound authors "
        "listed in ESC-50's LICENSE; cut into pieces by Sara Al-Emadi, whose repository states no licence",
        "GitHub saraalemadi/DroneAudioDataset, Binary_Drone_Audio/unknown/ (of GitHub karolpiczak/ESC-50)",
        Home(
            "saraalemadi/DroneAudioDataset",
            "1f1ffb214c63215c95176dcb70dda246f8ad96c1",
            esc10,
            "ba47a82d9a048e8b175a7fefe248d8ef38947d75e9a19fcdc4b9f8ee5b0d6203",
            "Of the classes of ESC-10, folds 1 to 4, two pieces of each clip; fold 5 is held out. Files "
            "unchanged, in one archive per fold. Split: train is folds 1 to 3, test is fold 4.",
            archive_about_bytes=600 * MB,
            archive_most_bytes=2000 * MB,
            unpacked_most_bytes=4000 * MB,
        ),
    ),
    Known(
        "audio_wakewords",
        "six wake words, microphones, 16 kHz",
        "Apache-2.0",
        "Picovoice, wake-word-benchmark",
        "GitHub Picovoice/wake-word-benchmark, audio/",
        Home(
            "Picovoice/wake-word-benchmark",
            "84919190fb1891bf0936dcb577d9268e467f876f",
            wakewords,
            "a6e6d3c0d39a7e2240f1af912dfcf2ee6b442efeca2fa9b56d079dc00569bd24",
            "40 recordings of each word were chosen and numbered; every fifth is held out. Samples unchanged, FLAC "
            "re-wrapped as WAV, in one archive per word. Split: test is number % 5 == 3, the rest is train.",
            archive_about_bytes=200 * MB,
            archive_most_bytes=1000 * MB,
            unpacked_most_bytes=2000 * MB,
        ),
    ),
    Known(
        "event_nmnist",
        "digits, event camera, 34 x 34 pixels",
        "CC BY-SA 4.0 (not confirmed); carrier GPL-3.0",
        "Orchard, Jayawant, Cohen, Thakor, Converting Static Image Datasets to Spiking Neuromorphic Datasets Using "
        "Saccades, Frontiers in Neuroscience 2015; carried by SLAYER",
        "GitHub bamsumit/slayerPytorch, test/test_files/NMNISTsmall/",
        Home(
            "bamsumit/slayerPytorch",
            "01beeeb6a181546d6c6830382ce6086bfc587836",
            nmnist,
            "dda8f1179ceda87b0892a47051372cf0d1f0ddbaeb705ee139b3da8b6036cec4",
            "Recordings 2 to 1000; the pairs with id // 2 % 8 == 0 are held out. Files unchanged, in one archive. "
            "Split: test is id // 2 % 8 == 1, the rest is train.",
            archive_about_bytes=40 * MB,
            archive_most_bytes=500 * MB,
            unpacked_most_bytes=1000 * MB,
        ),
    ),
    Known(
        "ultrasonic_wall_following",
        "robot in a room, 24 rangers, 9 Hz",
        "CC BY 4.0 at UCI (not confirmed)",
        "Freire, Veloso, Barreto, Wall-Following Robot Navigation Data, UCI 2010",
        "GitHub Transcendence-ML-Python/robot-sensor-data-classification-ml, sensor_readings_24.data",
        Home(
            "Transcendence-ML-Python/robot-sensor-data-classification-ml",
            "e52136804029a0360eb7a4e6f3dbddf11722debd",
            ring,
            "0c8f237d3f178301d92ba77f3ac6cb159ea7442c52feb313cbc0c8a0d8e0efb2",
            "The header and the first 4 365 rows, unchanged; the later rows are held out. Split: train is the first "
            "80 % of them in time, test the rest.",
            archive_about_bytes=MB,
            archive_most_bytes=50 * MB,
            unpacked_most_bytes=100 * MB,
        ),
    ),
    Known(
        "imu_uci_har",
        "six activities, phone IMU, 50 Hz",
        "UCI lists CC BY 4.0; original for research only",
        "Anguita, Ghio, Oneto, Parra, Reyes-Ortiz, UCI HAR, 2013",
        "GitHub mokch/0814_edu, data/UCI HAR Dataset (rounded); the full set at UCI",
        why_not="it was packed from a rounded part of the original, by no rule that is written down",
    ),
    Known(
        "vib_pipeline_pumps",
        "one to five pumps, vibration and pressure, 10 Hz",
        "MIT",
        "Bin Wang, Wuhan University of Technology, doi 10.1016/j.measurement.2026.121184",
        "GitHub WHUTBIN/WHUTpipelines-dataset",
        why_not="columns, a row and the end of each run were taken out",
    ),
    Known(
        "imu_gestures_arduino",
        "punch and flex, IMU as serial CSV, 119 Hz",
        "none stated",
        "cvasilak; spaziochirale",
        "GitHub cvasilak/AIoT-Dev-Summit-2019 and spaziochirale/TinyML",
        why_not="its sources state no licence",
    ),
    Known(
        "ultrasonic_echo_waveforms",
        "poles and boxes, raw 40 kHz echoes",
        "none stated",
        "dragos2001, Cluj-Napoca 2025",
        "GitHub dragos2001/UltrasonicProject, data/All_Data",
        why_not="its source states no licence",
    ),
    Known(
        "ultrasonic_sonar_uci",
        "mines and rocks, chirp sonar, 60 bands",
        "UCI lists CC BY 4.0 (not confirmed)",
        "Gorman and Sejnowski, 1988",
        "GitHub jbrownlee/Datasets, sonar.csv",
        why_not="no part of axond reads it, and every fifth row is held out",
    ),
    Known(
        "event_recordings",
        "eight file formats of event cameras, no labels",
        "MIT, GPL-2.0, GPL-3.0",
        "neuromorphicsystems, open-neuromorphic, neuromorphs, bamsumit",
        "GitHub neuromorphicsystems/faery, open-neuromorphic/expelliarmus, neuromorphs/tonic, bamsumit/slayerPytorch",
        why_not="it was collected from four places",
    ),
    Known(
        "nir_reference",
        "trained .nir graphs, recorded spikes, Braille letters",
        "BSD-3-Clause, Apache-2.0",
        "Pedersen et al., Nature Communications 2024; neuromorphic-polito",
        "GitHub neuromorphs/NIR, paper/ and neuromorphic-polito/L2MU-Braille",
        why_not="some of it was recovered from a figure, some packed anew",
    ),
    Known(
        "protocol_vectors",
        "bytes of serial sensors for parsers",
        "quoted; its entries name their sources",
        "named in each entry",
        "data sheets, public code and issues that its entries name",
        why_not="it was written for axond's tests",
    ),
)


def advice(name: str) -> str:
    """What to add to the complaint that dataset ``name`` is missing: how it can be had, "" where nobody knows."""
    public = any(dataset.name == name and dataset.home is not None for dataset in KNOWN)
    return f"; 'axond data get {name}' fetches it" if public else ""
