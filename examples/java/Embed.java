// Embeds texts from Java, and says what went wrong:
//
//     protoc -Iprotos -Iprotos/googleapis --java_out=SRC --grpc-java_out=SRC bertd/v1/inference.proto \
//         google/rpc/status.proto google/rpc/error_details.proto
//     java -cp CLASSES:JARS Embed ADDRESS [KEY]

import bertd.v1.EmbedRequest;
import bertd.v1.EmbedResult;
import bertd.v1.InferenceServiceGrpc;
import com.google.gson.Gson;
import com.google.rpc.ErrorInfo;
import com.google.rpc.Status;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.concurrent.TimeUnit;

class Embed {
    static FloatBuffer vector(EmbedResult result) {
        return result.getEmbedding().asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    }

    public static void main(String[] arguments) throws Exception {
        String config = Files.readString(Path.of(System.getenv("SERVICE_CONFIG"))); // examples/service_config.json
        ManagedChannel channel = ManagedChannelBuilder.forTarget(arguments[0]).usePlaintext()
            .defaultServiceConfig(new Gson().fromJson(config, Map.class)).enableRetry()
            .maxInboundMessageSize(16 << 20) // 4 MiB otherwise
            .build();
        Metadata headers = new Metadata();
        if (arguments.length > 1) {
            headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + arguments[1]);
        }
        InferenceServiceGrpc.InferenceServiceBlockingStub client = InferenceServiceGrpc.newBlockingStub(channel)
            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
        try {
            EmbedRequest two = EmbedRequest.newBuilder().addTexts("the cat sat on a mat").addTexts("").build();
            // The deadline is also the server's: a call that would miss it is refused.
            for (EmbedResult result : client.withDeadlineAfter(10, TimeUnit.SECONDS).embed(two).getResultsList()) {
                System.out.println(result.hasError()
                    ? result.getError().getCode() + ": " + result.getError().getMessage()
                    : vector(result).remaining() + " values");
            }
            client.withDeadlineAfter(10, TimeUnit.SECONDS).embed(EmbedRequest.getDefaultInstance());
        } catch (StatusRuntimeException failed) {
            Status status = StatusProto.fromThrowable(failed);
            for (com.google.protobuf.Any detail : status.getDetailsList()) {
                if (detail.is(ErrorInfo.class)) {
                    String reason = detail.unpack(ErrorInfo.class).getReason();
                    System.out.println(failed.getStatus().getCode() + " " + reason + ": " + status.getMessage());
                }
            }
        } finally {
            channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
        }
    }
}
