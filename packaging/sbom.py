"""Makes a list of crates the same for each build of a commit: `sbom.py FILE SECONDS`, to standard output.

cargo-cyclonedx writes the time and a random serial number into it, and the directory of the build.
"""

import json
import pathlib
import re
import sys
import time

path, seconds = sys.argv[1:]
sbom = json.loads(pathlib.Path(path).read_text())
sbom.pop("serialNumber", None)
sbom["metadata"]["timestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(seconds)))
text = json.dumps(sbom, indent=1, ensure_ascii=False, sort_keys=True)
print(re.sub(re.escape(str(pathlib.Path(path).parent)), "", text))
