// Java's clients of the matrix: `java Fetch WAY URL` prints what came back.

import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

public class Fetch {
    static String byHttpClient(URI uri) throws Exception {
        var answer = HttpClient.newHttpClient().send(HttpRequest.newBuilder(uri).build(), BodyHandlers.ofString());
        if (answer.statusCode() != 200) throw new Exception(answer.statusCode() + " " + answer.body());
        return answer.body();
    }

    static String byConnection(URI uri) throws Exception {
        var connection = (HttpURLConnection) uri.toURL().openConnection();
        if (connection.getResponseCode() != 200)
            throw new Exception(connection.getResponseCode() + " " + new String(connection.getErrorStream().readAllBytes()));
        return new String(connection.getInputStream().readAllBytes());
    }

    public static void main(String[] words) throws Exception {
        var uri = URI.create(words[1]);
        System.out.println(words[0].equals("client") ? byHttpClient(uri) : byConnection(uri));
    }
}
