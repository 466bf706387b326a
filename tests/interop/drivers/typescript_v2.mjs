// The TypeScript SDK 2.x as a driver: JSON requests on standard input, one line each; answers on standard output.
// node typescript_v2.mjs '{"stdio": [command, …]}' | '{"http": url}' [default | auto]
import { createInterface } from "node:readline";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const way = JSON.parse(process.argv[2]);
const mode = process.argv[3];
const [command, ...args] = way.stdio ?? [];
const transport = way.http
  ? new StreamableHTTPClientTransport(new URL(way.http))
  : new StdioClientTransport({ command, args, env: process.env });

const client = new Client(
  { name: "interop", version: "1" },
  { capabilities: { elicitation: { form: {} } }, ...(mode === "auto" ? { versionNegotiation: { mode } } : {}) },
);
// The person at this client types what they are asked to type.
client.setRequestHandler("elicitation/create", ({ params }) => {
  const told = params.requestedSchema.properties.name.description;
  return { action: "accept", content: { name: told.replace("Type it to confirm: ", "") } };
});
await client.connect(transport);
const say = (reply) => process.stdout.write(JSON.stringify(reply) + "\n");
say({ protocol: client.getNegotiatedProtocolVersion(), server: client.getServerVersion().name });

const answer = async ({ do: what, name, arguments: given, uri }) => {
  const progress = [];
  const onprogress = ({ message }) => progress.push(message);
  const ways = {
    list_tools: () => client.listTools(),
    call: () => client.callTool({ name, arguments: given }, { onprogress }),
    list_templates: () => client.listResourceTemplates(),
    read: () => client.readResource({ uri }),
  };
  return { ...(await ways[what]()), progress };
};

for await (const line of createInterface({ input: process.stdin })) {
  try {
    say(await answer(JSON.parse(line)));
  } catch (error) {
    say({ raised: { code: error.code ?? null, message: error.message } });
  }
}
await client.close();
