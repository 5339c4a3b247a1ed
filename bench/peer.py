"""A program that takes part: started once, kept alive, asked line by line (protocol: serve.h)."""
import json
import os
import select
import signal
import subprocess
import time


class Gone(Exception):
    pass


class Peer:
    def __init__(self, name, argv, log, env=None, cpus=None, kinds=("gemm", "conv", "model"), about=""):
        self.name, self.argv, self.log, self.cpus, self.kinds = name, argv, log, cpus, kinds
        self.env = {**os.environ, **(env or {})}
        self.about, self.process, self.broken = about, None, None
        self.rest = b""

    def start(self):
        if self.process:
            return
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self.env,
                preexec_fn=lambda: os.sched_setaffinity(0, self.cpus) if self.cpus else None)
        self.rest = b""
        answer = self.read(120)
        if not answer.get("ready"):
            raise Gone("%s did not start" % self.name)

    def read(self, timeout):
        end = time.monotonic() + timeout
        fd = self.process.stdout.fileno()
        while b"\n" not in self.rest:
            left = end - time.monotonic()
            if left <= 0:
                self.stop(kill=True)
                raise Gone("%s: no answer after %d s" % (self.name, timeout))
            if select.select([fd], [], [], left)[0]:
                data = os.read(fd, 1 << 16)
                if not data:
                    code = self.process.wait()
                    self.process = None
                    why = signal.Signals(-code).name if code < 0 else "exit code %d" % code
                    raise Gone("%s ended: %s (%s)" % (self.name, why, self.log))
                self.rest += data
        line, self.rest = self.rest.split(b"\n", 1)
        return json.loads(line)

    def ask(self, *words, timeout=300):
        """The answer to a command; {"ok": False, "error": ...} also when the program dies, which
        is then started anew for the next case."""
        try:
            self.start()
            self.process.stdin.write(("\t".join(map(str, words)) + "\n").encode())
            self.process.stdin.flush()
            return self.read(timeout)
        except (Gone, BrokenPipeError, OSError) as e:
            self.stop(kill=True)
            again = "SIGILL" in str(e) and "ONEDNN_MAX_CPU_ISA" not in self.env
            if again:  # a virtual machine may announce AMX and not allow it
                self.env["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_FP16"
            return {"ok": False, "error": str(e), "again": again}

    def peak_memory(self):
        """Largest resident size so far, in bytes."""
        try:
            with open("/proc/%d/status" % self.process.pid) as f:
                for line in f:
                    if line.startswith("VmHWM:"):
                        return int(line.split()[1]) * 1024
        except (OSError, AttributeError):
            pass
        return None

    def stop(self, kill=False):
        p, self.process = self.process, None
        if not p:
            return
        try:
            if kill:
                p.kill()
            else:
                p.stdin.write(b"quit\n")
                p.stdin.close()
            p.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            p.kill()
            p.wait()
