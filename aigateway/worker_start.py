"""What `serve` and `worker` start: ties this process to its parent first, then loads and runs a worker process.

Loading takes most of a second; a parent that is killed in that time must not leave a worker behind.
"""

import threading

from worker.parent import end_with_parent

if __name__ == "__main__":
    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
    from aigateway.worker_process import main

    main()
