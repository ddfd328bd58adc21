"""A receiver of webhooks for the tests. Requests become JSON files.

Arguments: port, certificate with key, folder. `/redirect` answers with a redirect to `/moved`,
`/endless` with a body that does not end, `/error` with 500. Ends with its standard input.
"""

import http.server
import json
import os
import ssl
import sys
import threading

port, pem, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
count = 0


class Keep(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.keep(b"")

    def do_POST(self):
        self.keep(self.rfile.read(int(self.headers["content-length"])))

    def keep(self, body):
        global count
        count += 1
        kept = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body.decode(),
        }
        name = os.path.join(folder, "%d-%d" % (os.getpid(), count))
        with open(name + ".new", "w") as file:
            json.dump(kept, file)
        os.rename(name + ".new", name + ".json")
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("location", "https://127.0.0.1:%d/moved" % port)
            self.end_headers()
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 65536)
            except OSError:
                pass
        elif self.path == "/error":
            self.send_response(500)
            self.end_headers()
            self.wfile.write(b"out of order")
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"thanks")

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Keep)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
os._exit(0)
