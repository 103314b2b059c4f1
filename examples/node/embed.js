// Embeds texts from Node, and says what went wrong:
//
//     npm install && node embed.js ADDRESS [KEY]

import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [address, key] = process.argv.slice(2);
const here = new URL("..", import.meta.url).pathname;
const loaded = grpc.loadPackageDefinition(
  loader.loadSync(["bertd/v1/inference.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"],
    { includeDirs: [`${here}/../protos`, `${here}/../protos/googleapis`], keepCase: true, enums: String }));

const client = new loaded.bertd.v1.InferenceService(address, grpc.credentials.createInsecure(), {
  "grpc.service_config": readFileSync(`${here}/service_config.json`, "utf8"),
  "grpc.max_receive_message_length": 16 * 1024 * 1024,  // 4 MiB otherwise
});
const metadata = new grpc.Metadata();
if (key) metadata.set("authorization", `Bearer ${key}`);

const embed = (texts) => new Promise((resolve, reject) => {
  const deadline = Date.now() + 10_000;  // also the server's: a call that would miss it is refused
  client.Embed({ texts }, metadata, { deadline }, (error, answer) => error ? reject(error) : resolve(answer));
});

// Bytes are a part of a larger buffer, at any place: only a copy is aligned for floats.
const vector = (bytes) => new Float32Array(Uint8Array.from(bytes).buffer);

function details(error) {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  return Object.fromEntries(loaded.google.rpc.Status.deserialize(bytes).details.map(({ type_url, value }) => {
    const name = type_url.split(".").pop();
    return [name, loaded.google.rpc[name].deserialize(value)];
  }));
}

const { results } = await embed(["the cat sat on a mat", ""]);
for (const { embedding, error } of results) {
  console.log(error ? `${error.code}: ${error.message}` : `${vector(embedding).length} values`);
}
try {
  await embed([]);
} catch (error) {
  console.log(`${grpc.status[error.code]} ${details(error).ErrorInfo.reason}: ${error.details}`);
}
client.close();
