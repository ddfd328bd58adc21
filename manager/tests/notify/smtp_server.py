"""A mail server for the tests: TLS and a password are needed. Mails become JSON files.

Arguments: port, certificate with key, folder; with the file `tls` in the folder, TLS comes before
anything else, and otherwise by STARTTLS; with the file `plain`, it offers neither. While the file `slow` is in the folder, it keeps a
mail, makes the file `begun` and does not answer. Ends with its standard input.
"""

import asyncio
import email
import email.policy
import json
import os
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

port, pem, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]


class Keep:
    count = 0

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        part = lambda kind: mail.get_body(preferencelist=(kind,)).get_content()
        kept = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "headers": [[name, str(value)] for name, value in mail.items()],
            "raw": envelope.content.decode("utf-8", "replace"),
            "text": part("plain"),
            "html": part("html"),
        }
        Keep.count += 1
        name = os.path.join(folder, "%d-%d" % (os.getpid(), Keep.count))
        with open(name + ".new", "w") as file:
            json.dump(kept, file)
        os.rename(name + ".new", name + ".json")
        if os.path.exists(os.path.join(folder, "slow")):
            open(os.path.join(folder, "begun"), "w").close()
            await asyncio.sleep(3600)
        return "250 2.0.0 taken as %d" % Keep.count


def authenticate(server, session, envelope, mechanism, data):
    good = getattr(data, "password", None) == b"correct horse"
    return AuthResult(success=good, handled=good)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)
mode = lambda name: os.path.exists(os.path.join(folder, name))
options = {"authenticator": authenticate, "auth_required": True}
if mode("tls"):
    # The session is inside TLS already; aiosmtpd knows only its own STARTTLS.
    options.update(ssl_context=context, auth_require_tls=False)
elif mode("plain"):
    options.update(auth_require_tls=False)
else:
    options.update(tls_context=context, require_starttls=True, auth_require_tls=True)
controller = Controller(Keep(), hostname="127.0.0.1", port=port, **options)
controller.start()
print("ready", flush=True)
sys.stdin.read()
os._exit(0)
