// The TypeScript SDK 1.x as a driver: JSON requests on standard input, one line each; answers on standard output.
// node typescript_v1.mjs '{"stdio": [command, …]}' | '{"http": url}'
import { createInterface } from "node:readline";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const way = JSON.parse(process.argv[2]);
const [command, ...args] = way.stdio ?? [];
const transport = way.http
  ? new StreamableHTTPClientTransport(new URL(way.http))
  : new StdioClientTransport({ command, args, env: process.env });

// The SDK tells its transport which revision was agreed, and nobody else.
let protocol;
const told = transport.setProtocolVersion?.bind(transport);
transport.setProtocolVersion = (version) => (protocol = version) && told?.(version);

const client = new Client({ name: "interop", version: "1" }, { capabilities: { elicitation: { form: {} } } });
// The person at this client types what they are asked to type.
client.setRequestHandler(ElicitRequestSchema, ({ params }) => {
  const told = params.requestedSchema.properties.name.description;
  return { action: "accept", content: { name: told.replace("Type it to confirm: ", "") } };
});
await client.connect(transport);
const say = (reply) => process.stdout.write(JSON.stringify(reply) + "\n");
say({ protocol, server: client.getServerVersion().name });

const answer = async ({ do: what, name, arguments: given, uri }) => {
  const progress = [];
  const onprogress = ({ message }) => progress.push(message);
  const ways = {
    list_tools: () => client.listTools(),
    call: () => client.callTool({ name, arguments: given }, undefined, { onprogress }),
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
