"""All areas of the fuzzer."""

from __future__ import annotations

from support import fuzz_data, fuzz_files, fuzz_labels, fuzz_network, fuzz_numbers

AREAS = [*fuzz_data.AREAS, *fuzz_labels.AREAS, *fuzz_files.AREAS, *fuzz_network.AREAS, *fuzz_numbers.AREAS]
