"""A device in Python with stock libraries: enrols over HTTPS, then speaks MQTT 5 over TLS with its certificate.

One JSON object on standard input says with whom; one on standard output tells what happened.
"""
import base64, hashlib, json, pathlib, queue, ssl, sys, urllib.request

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

asked = json.load(sys.stdin)
device, folder = asked["device"], pathlib.Path(asked["folder"])

# The token names the hub's authority by its fingerprint: whoever hands out the authority's certificate cannot lie.
authority = pathlib.Path(asked["authority"]).read_text()
pinned = base64.urlsafe_b64decode(asked["token"].split(".")[3] + "=")
shown = hashlib.sha256(ssl.PEM_cert_to_DER_cert(authority)).digest()
assert shown == pinned, "the authority is not the one of the token"

key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
body = {
    "token": asked["token"],
    "device": device,
    "request": request.public_bytes(serialization.Encoding.PEM).decode(),
}
post = urllib.request.Request(
    asked["url"] + "/api/v1/enrolments",
    data=json.dumps(body).encode(),
    headers={"content-type": "application/json"},
)
context = ssl.create_default_context(cadata=authority)
with urllib.request.urlopen(post, context=context, timeout=60) as answer:
    enrolled = json.load(answer)

(folder / "certificate.pem").write_text(enrolled["certificate"])
(folder / "authorities.pem").write_text(enrolled["authorities"])
(folder / "key.pem").write_bytes(
    key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
)

answers, published = queue.Queue(), queue.Queue()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device, protocol=mqtt.MQTTv5)
client.tls_set(
    ca_certs=str(folder / "authorities.pem"),
    certfile=str(folder / "certificate.pem"),
    keyfile=str(folder / "key.pem"),
)
client.on_connect = lambda client, data, flags, code, properties: answers.put(("connect", str(code)))
client.on_subscribe = lambda client, data, number, codes, properties: answers.put(("subscribe", str(codes[0])))
client.on_message = lambda client, data, message: answers.put(
    (message.topic, base64.b64encode(message.payload).decode())
)
client.on_publish = lambda client, data, number, code, properties: published.put((number, str(code)))
host, port = asked["mqtt"].rsplit(":", 1)
client.connect(host, int(port), clean_start=True)
client.loop_start()


def until(kind):
    while True:
        found, value = answers.get(timeout=120)
        if found == kind:
            return value


def publish(topic, payload):
    number = client.publish(topic, payload, qos=1).mid
    found, code = published.get(timeout=120)
    assert found == number, f"acknowledgement of {found}, expected {number}"
    return code


told = {"connect": until("connect")}
client.subscribe(f"v1/d/{device}/down/#", qos=1)
told["subscribe"] = until("subscribe")
told["own"] = publish(f"v1/d/{device}/up/batch", base64.b64decode(asked["batch"]))
told["other"] = publish(f"v1/d/{asked['other']}/up/batch", base64.b64decode(asked["batch"]))
told["ack"] = until(f"v1/d/{device}/down/ack")
client.disconnect()
client.loop_stop()
json.dump(told, sys.stdout)
