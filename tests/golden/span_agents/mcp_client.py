"""An MCP client and server in one process: a tool that answers, one that fails, under OpenLLMetry."""

import asyncio
import sys

from _telemetry import population, tracing
from opentelemetry.instrumentation.mcp import McpInstrumentor

provider = tracing()
McpInstrumentor().instrument(tracer_provider=provider)

from mcp.client.session import ClientSession  # noqa: E402
from mcp.client.stdio import StdioServerParameters, stdio_client  # noqa: E402


async def main() -> None:
    parameters = StdioServerParameters(command=sys.executable, args=[__file__, "serve"])
    async with stdio_client(parameters) as streams, ClientSession(*streams) as session:
        await session.initialize()
        await session.list_tools()
        print(await session.call_tool("population", {"city": "Delft"}))
        print(await session.call_tool("population", {"city": "Atlantis"}))


if sys.argv[1:] == ["serve"]:
    from mcp.server.fastmcp import FastMCP

    server = FastMCP("places")
    server.tool()(population)
    server.run()
else:
    asyncio.run(main())
    provider.shutdown()
