"""Process the sample files and show what came out: what ``make demo`` runs.

The command line does all of it; this only calls it with the samples and says what to do next.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = [
    "reviews.csv",
    "feedback_export.csv",
    "support_tickets.json",
    "app_reviews.jsonl",
    "survey_comments.txt",
    "broken.json",
]


def main() -> int:
    """Run the command on the samples; one of them is broken on purpose."""
    files = [str(Path("samples") / name) for name in SAMPLES]
    command = [sys.executable, "-m", "bulletproof", "process", *files]
    print("$ bulletproof process", " ".join(files), flush=True)
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code != 1:
        # 1 means: some files failed. Exactly one has to, and says why.
        return code or 1
    print(
        "\nOne file is broken on purpose: the answer says where, and the rest went on.\n"
        "Everything else is stored in .bulletproof/results.db (SQLite).\n"
        "Next:\n"
        "  make serve                                                      start the service, then\n"
        "  curl -F file=@samples/reviews.csv http://127.0.0.1:8000/process  send it a file\n"
        "  .venv/bin/bulletproof process YOUR_FILE --format json           process a file of yours"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
