"""The benchmark of a study on many machines, without a cluster."""

import bench_cluster
from benchmarks import cluster
from foveate.studies.planner import Probe


def test_studies_are_predicted_simulated_and_shown() -> None:
    probe = Probe(start_up=10.0, event=0.002, bandwidth=1e8, slots=2, speed=1.0)
    steps = {"none": 1.0, "se residual": 1.2}
    studies = [cluster._compared(name, work, probe, (1, 16), runs=5) for name, work in cluster._studies(steps).items()]
    assert [study["trials"] for study in studies] == [20, 20, 20]
    for study in studies:
        for row in study["machines"]:
            low, high = row["interval"]
            assert low <= row["simulated"] <= high
            assert 0.8 * row["seconds"] < row["simulated"] < 4 * row["seconds"]
    real = [{"nodes": 2, "trials": 48, "predicted": 40.0, "measured": 50.0}]
    page = "\n".join(
        bench_cluster.lines({"probe": vars(probe), "steps": steps, "rounds": 5, "studies": studies, "real": real})
    )
    assert page.count("**") == 6
    assert "| 2 | 48 | 40.0 s | 50.0 s | 1.25 |" in page
    assert "A step takes\n1.0 to 1.2 s." in page
